"""The report's style sheet: light and dark, printable, no fonts to fetch."""

STYLE = """
:root{--ink:#1f2328;--soft:#57606a;--line:#d0d7de;--page:#fff;--tile:#f6f8fa;--warn:#fff8c5}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;
--page:#0d1117;--tile:#151b23;--warn:#3a2f00}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1060px;margin:0 auto;padding:24px 20px 60px}
h1{font-size:26px;margin:0 0 12px}
h2{font-size:19px;margin:36px 0 10px}
h3{font-size:15px;margin:22px 0 8px}
.warning{background:var(--warn);border:1px solid var(--line);border-radius:6px;padding:10px 14px}
.note,footer{color:var(--soft)}footer{margin-top:40px;font-size:13px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:10px;margin:14px 0}
.tiles div{background:var(--tile);border:1px solid var(--line);border-radius:6px;padding:10px 14px}
.tiles span,.tiles i{display:block;color:var(--soft);font-size:13px;font-style:normal}
.tiles b{font-size:24px}
table{border-collapse:collapse}.wide{overflow-x:auto}
th,td{padding:5px 12px;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
.wide td{font-variant-numeric:tabular-nums;white-space:nowrap}
.facts th{color:var(--soft);font-weight:500;white-space:nowrap}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(400px,1fr));gap:14px}
figure{margin:0}.charts figure{border:1px solid var(--line);border-radius:6px;padding:8px}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font:11px system-ui,sans-serif}
svg .title{fill:var(--ink);font-size:14px;font-weight:600}
svg .grid{stroke:var(--line);stroke-width:.6}
svg .threshold{stroke:var(--ink);stroke-width:1.6;stroke-dasharray:5 3}
.gallery{display:flex;flex-wrap:wrap;gap:12px}
.gallery figure{width:504px}.gallery img{width:164px;height:auto;margin-right:4px;border-radius:3px}
figcaption{font-size:13px;color:var(--soft)}
@media print{figure,tr{break-inside:avoid}}
"""
