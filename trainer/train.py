"""Learn what good parts look like: images of normal parts in, a run folder out.

The test folder is never read here. What is exported is the running average of the weights at the
end of a fixed schedule; nothing is chosen by looking at defects.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from pathlib import Path

import torch
from torch import nn

from ..errors import ConfigError
from .checkpoint import Run, load_run
from .config import TrainConfig, load_config, parse_image_size, parse_seeds
from .datasets import find_dataset
from .distributed import Team, team
from .groups import with_groups
from .inputs import ImageStore, Lessons
from .learner import Learner
from .losses import cosine_loss
from .network import Network
from .official import load_official
from .progress import EpochRow, Progress
from .resnet import calibrate_batch_norm
from .run_folder import RunFolder
from .schedule import batch_indices, even_chunks, learning_rate, steps_per_epoch
from .split import hold_out, split_rows
from .teacher import install_teacher

log = logging.getLogger(__name__)

TEACHER_SAMPLE = 64
"""Images whose statistics calibrate the batch norms of a random teacher."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="folder with the images", metavar="DIR")
    parser.add_argument("--category", help="which category below --data; A,B,... trains several")
    parser.add_argument("--out", help="the run folder to write", metavar="DIR")
    parser.add_argument("--config", type=Path, help="YAML with any key of TrainConfig")
    parser.add_argument("--backbone", help="resnet18, resnet34, resnet50 or wide_resnet50_2")
    parser.add_argument(
        "--backbone-weights",
        metavar="FILE",
        help="teacher state dict, or 'random'; without it torchvision downloads",
    )
    parser.add_argument("--preset", help="poster, official or rd4ad")
    parser.add_argument("--image-size", metavar="H[,W]", help="multiples of 32")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--group-pattern",
        metavar="REGEX",
        help=r"what it catches in a file name is the lot or part, such as '^(lot\d+)_': "
        "images of one are never on both sides of the split",
    )
    parser.add_argument("--seeds", metavar="A,B,...", help="one run each, in OUT/CATEGORY/seedN")
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="cross-fit a small set: K runs, OUT/fold1 ... foldK",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted run with the same options"
    )


def run(arguments: argparse.Namespace) -> int:
    options = {
        "data": arguments.data,
        "category": arguments.category,
        "out": arguments.out,
        "backbone": arguments.backbone,
        "backbone_weights": arguments.backbone_weights,
        "preset": arguments.preset,
        "epochs": arguments.epochs,
        "batch": arguments.batch,
        "seed": arguments.seed,
        "group_pattern": arguments.group_pattern,
    }
    if arguments.image_size is not None:
        options["image_size"] = parse_image_size(arguments.image_size)
    config = load_config(arguments.config, options)
    categories = (config.category or "").split(",")
    if arguments.folds is not None and (arguments.seeds is not None or len(categories) > 1):
        raise ConfigError("--folds goes with one category and one seed", "run it once for each")
    if arguments.seeds is not None or len(categories) > 1:
        # Imported here: a sweep is made of calls to `train`.
        from .sweep import sweep, sweep_table

        rows = sweep(config, categories, parse_seeds(arguments.seeds, config.seed))
        if rows:  # under torchrun the first process speaks for all
            print(sweep_table(rows))
        return 0
    if arguments.folds is not None:
        from .crossfit import crossfit, crossfit_table  # made of calls to `train`, too

        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise ConfigError("--folds does not go with torchrun", "start it as one process")
        print(crossfit_table(crossfit(config, arguments.folds)))
        return 0
    if not learn(config, arguments.resume):
        return 0  # under torchrun the first process speaks for all
    result = load_run(Path(config.out))
    origin = result.origin
    print(
        f"{result.folder}: {result.spec.backbone}, preset {origin.preset}, {origin.epochs} epochs"
        f" on {origin.n_fit} good parts, {origin.n_calibration} held out;"
        f" teacher: {result.teacher.kind} ({result.teacher.detail})"
    )
    return 0


def train(config: TrainConfig, resume: bool = False) -> Run:
    """Train as `config` says and return the finished run.

    Raises ConfigError and DataError before anything is written, EngineError when it diverges.
    """
    learn(config, resume)
    return load_run(Path(config.out))


def learn(config: TrainConfig, resume: bool = False) -> bool:
    """`train` for one process of several: whether this is the one that has the run folder."""
    device = choose_device(config.device)
    with team(device, config.batch) as mates:
        folder = RunFolder(Path(config.out), config, resume, mates)
        try:
            _train(config, folder, device, mates)
        finally:
            folder.close()
    return mates.leads


def _train(config: TrainConfig, folder: RunFolder, device: torch.device, mates: Team) -> None:
    """The whole story, in chapters; `train` above is its frame."""
    started = time.monotonic()

    # Images: all are read and checked before anything is written.
    dataset = find_dataset(Path(config.data), config.category)
    for problem in dataset.problems:
        log.warning("%s", problem)
    normals = with_groups(dataset.train, config.group_pattern, config.group_table)
    fit, held_out = hold_out(
        normals,
        dataset.validation,
        config.seed,
        share=config.calibration_share,
        fold=config.fold,
        folds=config.folds,
    )
    split = split_rows(fit, held_out)
    input_spec = config.input_spec()
    fit_images = ImageStore([s.path for s in fit], input_spec, config.image_cache_gib)
    held_out_images = ImageStore([s.path for s in held_out], input_spec, config.image_cache_gib)

    # Network: seeded initialisation, frozen teacher.
    make_deterministic(config.deterministic)
    torch.manual_seed(config.seed)
    network = Network(config.network_spec())
    teacher = install_teacher(
        network,
        config.backbone_weights,
        config.seed,
        lambda: [
            fit_images.batch(chunk) for chunk in even_chunks(min(TEACHER_SAMPLE, len(fit)), 16)
        ],
        config.random_layer4,
    )
    if config.initial_checkpoint:
        load_official(network, Path(config.initial_checkpoint))
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    network.to(device, memory_format=memory_format)  # type: ignore[call-overload]
    learner = Learner(
        network,
        config.loss_weights(),
        clip_norm=config.clip_norm,
        ema_decay=config.ema_decay,
        precision=config.precision,
        compiled=config.compile,
        team_size=mates.size,
    )

    # Lessons: the teacher looks at every image once when its features fit into memory.
    share = len(fit) / (len(fit) + len(held_out))
    lessons, checks = (
        Lessons(
            images,
            network,
            device=device,
            memory_format=memory_format,
            cache_gib=config.feature_cache_gib * part,
        )
        for images, part in (
            (fit_images, 0.0 if config.nuisance.active else share),
            (held_out_images, 1.0 - share),
        )
    )

    # Epochs.
    per_epoch = steps_per_epoch(len(fit), config.batch)
    total, warmup = config.epochs * per_epoch, round(config.warmup_epochs * per_epoch)
    first = folder.begin(learner, split)
    progress = Progress(config.epochs, per_epoch, first, quiet=not mates.leads)
    for epoch in range(first, config.epochs):
        epoch_started = time.monotonic()
        figures = []
        rate = 0.0
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            rate = learning_rate(step, total, warmup, config.learning_rate, config.final_rate_share)
            indices = mates.share(batch_indices(step, len(fit), config.batch, config.seed))
            x = None
            if config.nuisance.active:
                place = mates.rank * len(indices)
                x = lessons.disturbed(indices, config.nuisance, [config.seed, step], place)
            elif learner.head is not None or not lessons.cached:
                x = lessons.inputs(indices)
            figure = learner.step(step, lessons.taught(indices, x), x, rate)
            if figure is not None:
                figures.append(figure)
                progress.step(figure.total)
        learner.mark_good()
        seconds = time.monotonic() - epoch_started
        loss = held_out_loss(learner.averaged, checks, config.batch)
        row = EpochRow.of(epoch, rate, figures, loss, learner.restores, seconds)
        progress.epoch(row)
        folder.epoch_done(learner, row)
    progress.close()

    # Export: the average, with batch statistics of its own.
    averaged = learner.averaged
    if config.epochs:
        refresh_batch_norm(averaged, lessons, config.batch)
    final_loss = held_out_loss(averaged, checks, config.batch)
    averaged.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    folder.finish(
        averaged,
        teacher,
        {
            "held_out_cosine_loss": final_loss,
            "seconds_this_process": round(time.monotonic() - started, 1),
            "steps": total,
            "feature_cache": lessons.cached,
            "device": str(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
    )


def choose_device(name: str) -> torch.device:
    """The device named, or for "auto" this process's GPU where torch sees one."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def make_deterministic(wanted: bool) -> None:
    """On the CPU a run repeats bit for bit anyway, given the same number of threads."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(wanted)


@torch.no_grad()
def held_out_loss(network: Network, checks: Lessons, batch: int) -> float:
    """Cosine loss of `network` (eval mode) on the held-out good parts: divergence shows here.

    It is not used to choose anything: it keeps falling while a student learns to rebuild defects.
    """
    network.eval()
    total = 0.0
    for chunk in even_chunks(len(checks), batch):
        features = network.learn(checks.taught(chunk))
        total += float(cosine_loss(features.teacher, features.student)) * len(chunk)
    return total / len(checks)


def refresh_batch_norm(network: Network, lessons: Lessons, batch: int) -> None:
    """Batch statistics of the averaged weights over all images learned from ("precise BN")."""
    parts = nn.ModuleList(p for p in (network.bottleneck, network.student) if p is not None)
    chunks = even_chunks(len(lessons), batch)
    calibrate_batch_norm(
        parts,
        lambda *taught: network.learn(taught),
        (lessons.taught(chunk) for chunk in chunks),
    )
    network.eval()
