// Print a recording: `skrd4ad listen --record DIR`, then `ReadRecords DIR/records.bin`.
//
//     mcs ReadRecords.cs SkrdRecord.cs        (or a .NET console project with both files)
using System;
using System.Globalization;
using System.IO;

static class ReadRecords
{
    static int Main(string[] arguments)
    {
        if (arguments.Length != 1 || !File.Exists(arguments[0]))
        {
            Console.Error.WriteLine("usage: ReadRecords records.bin");
            return 2;
        }
        using (var file = File.OpenRead(arguments[0]))
        {
            var bytes = new byte[SkrdRecord.Bytes];
            int got;
            while ((got = file.Read(bytes, 0, bytes.Length)) > 0)
            {
                SkrdRecord r;
                if (!SkrdRecord.TryRead(bytes, got, out r))
                {
                    Console.Error.WriteLine("a damaged record at byte {0}", file.Position - got);
                    return 1;
                }
                Console.WriteLine(string.Join(" ", new object[] {
                    r.Seq, r.VerdictName, r.Flags, r.BootLo, r.TriggerSeq, r.CapturedNs, r.TotalUs,
                    ((double)r.Score).ToString("R", CultureInfo.InvariantCulture),
                    ((double)r.Threshold).ToString("R", CultureInfo.InvariantCulture),
                    r.RegionId, r.Regions, r.OkCount, r.NgCount, r.ErrCount }));
            }
        }
        return 0;
    }
}
