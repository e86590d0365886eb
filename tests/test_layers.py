"""Imports go down only: twelve subpackages in seven layers (docs/architecture.md)."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from repository import ROOT

PACKAGE = ROOT / "genprior"
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# A room, and the longest prefixes that it may import.
ALLOWED = {
    "core": ["core"],
    "io": ["core", "io"],
    "operators": ["core", "operators"],
    "priors": ["core", "priors"],
    "integrations": ["core", "operators.base", "priors.base", "integrations"],
    "inverse": ["core", "operators.base", "priors.base", "integrations", "inverse"],
    "training": ["core", "io", "priors.base", "priors.checkpoint", "priors.nets.compile",
                 "training"],
    "registry": ["core.errors", "priors.weights"],
    "api": ["core", "io", "operators", "priors.arguments", "priors.base", "priors.checkpoint",
            "priors.external",
            "inverse.base", "inverse.baselines.base", "inverse.blind", "inverse.execution",
            "inverse.diffusion.unconditional", "integrations", "registry", "api"],
    "evaluation": ["core", "io", "operators.base", "priors.base", "priors.checkpoint",
                   "inverse.base", "inverse.baselines.base", "api", "registry", "evaluation"],
    "web": ["core", "io", "operators.base", "inverse.base", "priors.checkpoint",
            "priors.external", "registry", "api", "web"],
    "commands": ["core", "io", "priors", "training", "registry", "api", "evaluation", "web",
                 "commands"],
    "cli": ["commands", "core.errors"],
    "__main__": ["cli"],
    "restoration": ["core", "io", "api", "operators.base"],
    "transforms": ["api", "operators.base"],
    "__init__": ["api", "inverse.base", "priors.nets.compile", "restoration", "transforms"],
}
# The folders of solvers do not import each other; these modules are shared by all.
SHARED_BY_SOLVERS = ["inverse.base", "inverse.tikhonov", "inverse.self_ensemble"]
# Importable without torch, numpy, Pillow or deepinv: --help must be quick.
LIGHT = ["__init__", "__main__", "cli", "registry", "core.errors", "core.__init__",
         "core.noise_text", "io.limits",
         "io.__init__", "priors.__init__", "priors.weights.__init__", "api.__init__",
         "api.files.__init__", "api.files.save_options",
         *(name for name in FILES if name.startswith("commands."))]
HEAVY = {"torch", "torchvision", "deepinv", "numpy", "scipy", "skimage", "PIL", "tifffile", "tqdm"}
# What solvers and baselines inherit.
ABSTRACT = {"inverse.base", "inverse.baselines.base", "inverse.diffusion.sampler"}
# What operators and priors inherit.
ABSTRACT_SIBLINGS = {
    "operators.base", "operators.downsampling", "operators.nonlinear", "priors.base"
}
# Names of priors or operators belong into these; all others go by the registry.
NAMES_CONCRETE_CLASSES = ["registry", "api.tasks"]

# Modules whose tests stand in a file of another name, since they are parts of what it tests.
TESTED_BY = {
    "__main__": "commands/test_cli_output.py",
    "cli": "commands/test_cli_output.py",
    "registry": "api/test_registry.py",
    "api.diagnostics": "api/test_restoration.py",
    "api.inputs": "api/test_restoration_errors.py",
    "api.files.job": "api/files/test_restore_files.py",
    "priors.external.edm_preconditioning": "priors/external/test_edm_networks.py",
    "api.files.outputs": "commands/test_restore_batches.py",
    "api.files.paths": "api/files/test_restore_files.py",
    "api.files.save_options": "commands/test_cli_output.py",
    "api.files.sidecar": "commands/test_cli.py",
    "commands.completion": "commands/test_config.py",
    "commands.console": "commands/test_restore_batches.py",
    "commands.degrade": "commands/test_cli.py",
    "commands.evaluate": "evaluation/test_runner.py",
    "commands.import_weights": "api/test_weight_import.py",
    "commands.prior_arguments": "commands/test_cli_families.py",
    "commands.priors": "commands/test_cli_commands.py",
    "commands.progress": "commands/test_cli_words.py",
    "commands.provenance": "evaluation/test_summary.py",
    "commands.restore": "commands/test_cli.py",
    "commands.sample": "api/test_sampling.py",
    "commands.serve": "web/test_server.py",
    "commands.solvers": "commands/test_cli_commands.py",
    "commands.standard_streams": "commands/test_cli_output.py",
    "commands.train": "commands/test_cli_families.py",
    "evaluation.plan": "evaluation/test_runner.py",
    "evaluation.reference_images": "evaluation/test_runner_seeds.py",
    "evaluation.report": "evaluation/test_summary.py",
    "inverse.baselines.base": "api/test_registry.py",
    "inverse.diffusion.likelihood": "inverse/diffusion/test_smc.py",
    "inverse.diffusion.photo_covariance": "inverse/diffusion/test_jfps.py",
    "inverse.execution.memory": "inverse/execution/test_executor.py",
    "inverse.gaussian.dense": "inverse/gaussian/test_posterior.py",
    "inverse.gaussian.fourier": "inverse/gaussian/test_posterior.py",
    "inverse.gaussian.linear_mmse": "inverse/gaussian/test_posterior.py",
    "inverse.optimization.mala": "inverse/optimization/test_langevin.py",
    "inverse.optimization.objective": "inverse/optimization/test_langevin.py",
    "inverse.optimization.restarts": "inverse/optimization/test_csgm.py",
    "inverse.self_ensemble": "inverse/plug_and_play/test_posterior_mean.py",
    "io.encode": "io/test_images.py",
    "io.raster": "io/test_decode.py",
    "io.tiff": "io/test_decode.py",
    "io.torchvision_datasets": "io/test_datasets.py",
    "operators.base": "operators/test_physics.py",
    "operators.decomposable": "operators/test_blur.py",
    "operators.downsampling": "operators/test_superres.py",
    "operators.physics_maps": "operators/test_physics.py",
    "operators.physics_pickling": "operators/test_pickling.py",
    "priors.arguments": "priors/test_checkpoint.py",
    "priors.base": "priors/test_ddpm.py",
    "priors.external.dcgan": "priors/external/test_generators.py",
    "priors.external.dense_vae": "priors/external/test_generators.py",
    "priors.external.diffusers_folder": "priors/external/test_diffusers_unet.py",
    "priors.external.diffusers_writer": "api/test_export.py",
    "priors.external.drunet": "priors/external/test_denoising_cnn.py",
    "priors.external.single_level": "priors/external/test_denoising_cnn.py",
    "priors.external.spandrel_registry": "priors/external/test_spandrel_models.py",
    "priors.external.hub": "priors/external/test_weight_files.py",
    "priors.nets.autoencoder": "priors/test_vae.py",
    "priors.nets.blocks": "priors/nets/test_unet.py",
    "priors.nets.dcgan": "priors/test_gan.py",
    "priors.nets.flows": "priors/test_glow.py",
    "priors.nets.pix2pix": "priors/test_pix2pix.py",
    "priors.nets.reversible": "priors/test_glow.py",
    "priors.nets.stylegan": "priors/test_gan.py",
    "training.log": "training/test_settings.py",
    "web.guard": "web/test_server.py",
}


@cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path, top_only: bool = False) -> frozenset[str]:
    """Everything that a file imports, as "module" and "module.name"."""
    tree = syntax(path)
    found = set()
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


@cache
def ours(path: Path) -> frozenset[str]:
    """The modules of this package that a file imports, without "genprior."."""
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "genprior":
            while len(parts) > 1 and ".".join(parts[1:]) not in FILES and (
                ".".join([*parts[1:], "__init__"]) not in FILES
            ):
                parts.pop()
            found.add(".".join(parts[1:]) or "__init__")
    return frozenset(found)


def within(name: str, prefixes: list[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


@pytest.mark.parametrize("name", FILES)
def test_a_room_imports_lower_floors_only(name: str) -> None:
    allowed = ALLOWED[name.split(".")[0]]
    outside = [other for other in ours(FILES[name]) if not within(other, [*allowed, "__init__"])]
    assert not outside, f"{name} may import {allowed}"


def test_no_file_imports_itself_through_others() -> None:
    graph = {name.removesuffix(".__init__"): ours(path) for name, path in FILES.items()}
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name not in done:
            for other in graph.get(name, ()):
                if other != "__init__":
                    walk(other, (*way, name))
            done.add(name)

    for name in graph:
        walk(name, ())


def test_no_two_rooms_import_each_other() -> None:
    rooms = {name: set() for name in ALLOWED if name != "__init__"}
    for name, path in FILES.items():
        if name != "__init__":
            rooms[name.split(".")[0]] |= {other.split(".")[0] for other in ours(path)}
    both = [(a, b) for a in rooms for b in rooms[a] & rooms.keys() if a < b and a in rooms[b]]
    assert not both


def test_folders_of_solvers_do_not_know_each_other() -> None:
    for name, path in FILES.items():
        if name.startswith("inverse."):
            folder = ".".join(name.split(".")[:-1])
            own = SHARED_BY_SOLVERS if folder == "inverse" else [*SHARED_BY_SOLVERS, folder]
            siblings = [m for m in ours(path) if m.startswith("inverse.")]
            assert all(within(sibling, own) for sibling in siblings), name


def test_a_solver_never_imports_a_solver() -> None:
    solver = re.compile(r"\((Chain|Diffusion)?Solver\):")
    for name, path in FILES.items():
        if name.startswith("inverse."):
            for other in ours(path) - ABSTRACT:
                if other.startswith("inverse."):
                    assert not solver.search(FILES[other].read_text()), (name, other)


@pytest.mark.parametrize("room", ["operators", "priors"])
def test_operators_and_priors_import_no_concrete_sibling(room: str) -> None:
    base = re.compile(r"class \w+\(.*\b(Operator|Denoiser|Decoder|Density|Gaussian)\b")
    for name, path in FILES.items():
        if name.startswith(f"{room}."):
            for other in ours(path) - ABSTRACT_SIBLINGS:
                if other.startswith(f"{room}.") and other in FILES:
                    assert not base.search(FILES[other].read_text()), (name, other)


def test_only_the_registry_names_concrete_classes() -> None:
    contracts = ["operators.base", "priors.arguments", "priors.base", "priors.checkpoint",
                 "priors.weights", "priors.nets", "priors.external",
                 "priors.latent_interpolation", "operators.kernels", "operators.masks",
                 "operators.noise_models", "operators.whitened", "operators.jpeg_tables",
                 "operators.nonlinear"]
    for name, path in FILES.items():
        room = name.split(".")[0]
        if room in ("operators", "priors") or name in NAMES_CONCRETE_CLASSES:
            continue
        for other in ours(path):
            if other.split(".")[0] in ("operators", "priors"):
                assert within(other, contracts), (name, other)


@pytest.mark.parametrize("name", LIGHT)
def test_the_command_line_imports_nothing_heavy_at_the_top(name: str) -> None:
    found = imports(FILES[name], top_only=True)
    assert not {module.split(".")[0] for module in found} & HEAVY
    for module in found:
        if module.startswith("genprior."):
            parts = module.split(".")[1:]
            names = [".".join(parts), ".".join([*parts, "__init__"]), ".".join(parts[:-1]),
                     ".".join([*parts[:-1], "__init__"])]
            assert any(other in LIGHT for other in names), module


def test_only_the_command_line_prints_or_parses() -> None:
    for name, path in FILES.items():
        if name.split(".")[0] not in ("cli", "commands"):
            called = {n.func.id for n in ast.walk(syntax(path))
                      if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
            libraries = {module.split(".")[0] for module in imports(path)}
            assert "print" not in called and "click" not in libraries, path


def test_every_module_has_its_test() -> None:
    tests = ROOT / "tests"
    for name in FILES:
        folder, _, module = f".{name}".rpartition(".")
        own = tests / folder[1:].replace(".", "/") / f"test_{module}.py"
        if module != "__init__":
            assert own.exists() != (name in TESTED_BY), f"{own}, or an entry in TESTED_BY"
    assert all((tests / file).is_file() for file in TESTED_BY.values())
    assert TESTED_BY.keys() <= FILES.keys()


def test_at_most_eight_modules_lie_loose() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from genprior.cli import main; main(['--help'], standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
