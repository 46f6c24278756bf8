"""Which module may import which, and where the outside world may be used."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import toml

import onebox
from onebox.providers import CLOUDS, PROVIDERS

PACKAGE = Path(__file__).parent.parent / "onebox"
FILES = sorted(PACKAGE.rglob("*.py"))
# The providers that have a library; a cluster is reached by ssh.
WITH_LIBRARY = [name for name, row in PROVIDERS.items() if row.library]

# What the process was started with is read here, and handed on.
READS_ENVIRONMENT = {
    "part_process.py",  # where the process of one of several boxes begins
    "line_contexts.py",  # where a command line begins: handed to the session
    "program.py",  # for completion: handed to the values of flags
    "agent/downloads/identity.py",  # the variable that Google's own tools read
    "agent/host_key.py",  # the address that its client has come to
    "agent/jobs/job_request.py",  # the box's own, which a job inherits in part
    "agent/jobs/session.py",  # that of a login to the box
    "agent/ray/jobs_api.py",  # the token of the cluster
    "agent/ray/scratch.py",  # what Ray gives to a job
    "agent/slurm/node.py",  # what Slurm gives to a job
    "agent/slurm/scheduler.py",  # the login, whose PATH leads to Slurm
    "agent/watchdog.py",  # the box's own, for the command that powers it off
    "providers/kernel/servers/provider.py",  # tokens: the SDKs read no file
    "subprocess_env.py",  # what the programs that we start inherit
    "remote/connection.py",  # XDG_RUNTIME_DIR, for a socket's path, which is short
}


def module_path(path: Path) -> str:
    """Return a file's path within the package."""
    return path.relative_to(PACKAGE).as_posix()


@functools.cache
def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"), str(path))


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """Return the full names of all imports of a file."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    here = ["onebox", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def belongs_to(imported: str, *packages: str) -> bool:
    """Return whether a name belongs to one of these packages."""
    return any(f"{imported}.".startswith(f"{package}.") for package in packages)


def importers(*packages: str) -> set[str]:
    """Return the files that import one of these packages."""
    return {
        module_path(path)
        for path in FILES
        for found in imports(path)
        if belongs_to(found, *packages)
    }


def code_words(module: ast.Module) -> Iterator[str]:
    """Return the strings (without docstrings) and the names in a module's code."""
    docstrings = {
        id(node.value)
        for node in ast.walk(module)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings:
                yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]


def calls(path: Path) -> Iterator[ast.Call]:
    """Return the calls in a file."""
    return (node for node in ast.walk(parse(path)) if isinstance(node, ast.Call))


class TestOneImporterEach:
    def test_only_the_plugin_and_its_tasks_import_invoke(self) -> None:
        """No other module knows Invoke."""
        below = ("exit_code", "flags", "invoke_internals", "line_contexts", "parser")
        allowed = (*below, "pipeline_tasks", "plugin", "program", "tasks")

        assert {f"{name}.py" for name in allowed} == importers("invoke")

    def test_only_the_screen_imports_rich(self) -> None:
        """No other module knows rich."""
        assert {
            "ui/console.py",
            "ui/layout.py",
            "ui/progress.py",
            "ui/screen.py",
            "ui/table.py",
        } == importers("rich")

    def test_only_one_module_imports_a_toml_parser(self) -> None:
        """No other module parses TOML."""
        found = importers("toml", "tomllib", "tomli")

        assert found == {"settings/toml_file.py"}

    def test_only_the_local_box_imports_asyncssh(self) -> None:
        """The ssh server belongs to the local box's own process."""
        found = importers("asyncssh", "asyncio")

        assert found
        assert all(path.startswith("providers/local/") for path in found)

    @pytest.mark.parametrize(
        ("library", "place"),
        [
            *((PROVIDERS[name].library, f"providers/{name}/") for name in WITH_LIBRARY),
            ("botocore", "providers/aws/"),
            ("google", "providers/gcp/"),
            ("requests", "providers/kernel/"),
        ],
    )
    def test_only_its_provider_imports_a_clouds_library(
        self, library: str, place: str
    ) -> None:
        """Other modules do not know the library."""
        assert all(path.startswith(place) for path in importers(library))

    def test_every_dependency_is_declared(self) -> None:
        """
        An import is of onebox, of the standard library or of a declared
        dependency.
        """
        if sys.version_info < (3, 10):
            pytest.skip("sys.stdlib_module_names begins with Python 3.10")
        foreign = {
            found.partition(".")[0] for path in FILES for found in imports(path)
        } - {*sys.stdlib_module_names, "onebox"}
        # It is that of a cluster, on whose nodes alone its importer runs.
        assert importers("ray") == {"agent/ray/driver.py"}
        foreign -= {"ray"}
        project = toml.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        lines = [*project["dependencies"], *(one for p in CLOUDS for one in extras[p])]
        declared = {re.split("[<>=]", line)[0] for line in lines}
        # Modules that are called otherwise, and what a declared one is made of.
        brought = {
            "botocore": "boto3",
            "digitalocean": "python-digitalocean",
            "google": "google-cloud-compute",
            "requests": "python-digitalocean",
            "urllib3": "python-digitalocean",
        }

        assert {brought.get(module, module) for module in foreign} <= declared

    def test_each_provider_has_an_extra_with_the_packages_of_its_library(self) -> None:
        """
        The extras are the providers of the table and `all`.

        An extra adds a package only if that package needs a newer Python than onebox.
        """
        project = toml.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        everything = f"onebox[{','.join(WITH_LIBRARY)}]"

        assert {*WITH_LIBRARY, "all", "dev"} == set(extras)
        assert [everything] == extras["all"]
        for provider in WITH_LIBRARY:
            row = PROVIDERS[provider]
            packages = [one for one in extras[provider] if "python_version" not in one]
            assert set(packages) <= set(project["dependencies"])
            assert f"pip install 'onebox[{provider}]'" == row.missing_sdk


# From the top down, as ARCHITECTURE.md draws them: a module imports only modules of its
# own band and of lower bands. `__init__` has the public names, and is above all.
BANDS = [
    {"api", "program", "project_search"},
    {"tasks", "pipeline_tasks", "stage_graph"},
    {
        *("plugin", "flags", "parser", "invoke_internals", "line_contexts"),
        *("flag_mistakes", "plan_line", "contradictions"),
    },
    {"part_process"},
    {"runner"},
    {"stages"},
    {"exit_code", "completion"},
    {
        *("images", "jobs", "units", "boxes", "exports"),
        *("context", "chain_state", "project_files", "project_data", "python_hints"),
    },
    {"transfer"},
    {"remote"},
    {"providers", "settings"},
    {"store"},
    {"ui"},
    {"agent", "agent_bundle", "bounded_process", "command_line"},
    {
        "command_hints",
        "line_values",
        "early_interrupt",
        "errors",
        "file_owners",
        "formatting",
        "invocation",
        "late_flags",
        "repositories",
        "signals",
        "standard_streams",
        "subprocess_env",
    },
]
BAND = {name: number for number, band in enumerate(BANDS) for name in band}


class TestBands:
    def test_every_module_has_its_place_in_one_band(self) -> None:
        """A new module is added to the list, so that its direction is checked too."""
        names = {module_path(path).split("/")[0].removesuffix(".py") for path in FILES}

        assert names - {"__init__", "__main__"} == set(BAND)
        assert len(BAND) == sum(map(len, BANDS))

    def test_module_imports_nothing_of_a_higher_band(self) -> None:
        """This holds for imports within functions, and for annotations too."""
        upward = {
            f"{module_path(path)}: {found}"
            for path in FILES
            if path.parent != PACKAGE or path.stem not in ("__init__", "__main__")
            for found in imports(path)
            if belongs_to(found, "onebox") and found.count(".")
            if BAND.get(found.split(".")[1], len(BANDS))
            < BAND[module_path(path).split("/")[0].removesuffix(".py")]
        }

        assert set() == upward

    def test_no_module_has_the_name_of_a_public_name(self) -> None:
        """The import of such a submodule would replace the public name."""
        modules = {
            path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py")
        }

        assert not modules & set(onebox.__all__)

    def test_modules_of_the_lowest_band_import_nothing_of_onebox(self) -> None:
        """They can be read alone, and imported by everything."""
        for name in BANDS[-1]:
            ours = [
                found
                for found in imports(PACKAGE / f"{name}.py")
                if belongs_to(found, "onebox")
            ]
            assert [] == ours, name

    def test_agent_imports_only_the_standard_library_and_itself(self) -> None:
        """The agent runs on any box."""
        if sys.version_info < (3, 10):
            pytest.skip("sys.stdlib_module_names begins with Python 3.10")
        for path in (PACKAGE / "agent").rglob("*.py"):
            for found in imports(path):
                own = belongs_to(found, "onebox.agent", "ray")
                library = found.partition(".")[0] in sys.stdlib_module_names
                assert own or library, f"{module_path(path)}: {found}"

    def test_only_the_provider_table_and_the_providers_name_clouds(self) -> None:
        """Code outside of `onebox/providers` reads the table instead."""
        pattern = re.compile(rf"(?<![.\w-])(?:{'|'.join(CLOUDS)})(?![\w-])")
        found = {
            f"{module_path(path)}: {text}"
            for path in FILES
            if not module_path(path).startswith("providers/")
            for text in code_words(parse(path))
            if pattern.search(text)
        }

        assert set() == found

    def test_providers_are_loaded_only_through_the_table(self) -> None:
        """No other module imports a provider."""
        for provider in PROVIDERS:
            found = importers(f"onebox.providers.{provider}")
            own = f"providers/{provider}/"
            assert all(path.startswith(own) for path in found), found


class TestLength:
    def test_no_module_has_more_than_400_lines(self) -> None:
        """A longer module is split at a seam."""
        lengths = {
            module_path(path): len(path.read_bytes().splitlines()) for path in FILES
        }

        assert {} == {path: lines for path, lines in lengths.items() if lines > 400}


class TestSideEffects:
    def test_only_the_screen_prints(self) -> None:
        """No other module calls print or input."""
        found = {
            module_path(path)
            for path in FILES
            for call in calls(path)
            if isinstance(call.func, ast.Name) and call.func.id in ("print", "input")
        }

        assert found <= {"ui/plain.py", "ui/screen.py"}

    def test_no_command_runs_through_a_shell(self) -> None:
        """Every command is a list of words."""
        found = {
            module_path(path)
            for path in FILES
            for call in calls(path)
            if any(word.arg == "shell" for word in call.keywords)
            or ast.unparse(call.func) in ("os.system", "os.popen")
            or ast.unparse(call.func).startswith("subprocess.get")
        }

        assert set() == found

    def test_environment_is_read_only_in_the_listed_places(self) -> None:
        """Other code gets the environment as an argument."""
        found = {
            module_path(path)
            for path in FILES
            for node in ast.walk(parse(path))
            if isinstance(node, ast.Attribute)
            and ast.unparse(node)
            in ("os.environ", "os.environb", "os.getenv", "os.putenv")
        }

        assert READS_ENVIRONMENT == found

    def test_no_code_is_loaded_from_data(self) -> None:
        """No module calls eval, exec, compile or pickle's load functions."""
        found = {
            module_path(path)
            for path in FILES
            for call in calls(path)
            if ast.unparse(call.func)
            in ("eval", "exec", "compile", "pickle.loads", "pickle.load")
        }

        assert set() == found


class TestErrorsAndDocstrings:
    def test_no_exception_is_caught_without_its_name(self) -> None:
        """A handler of every exception must raise it again."""
        for path in FILES:
            for node in ast.walk(parse(path)):
                if not isinstance(node, ast.ExceptHandler):
                    continue
                assert node.type is not None, f"{module_path(path)}:{node.lineno}"
                caught = ast.unparse(node.type)
                if "BaseException" in caught or caught.startswith("(Exception"):
                    raised = [n for n in ast.walk(node) if isinstance(n, ast.Raise)]
                    assert raised, f"{module_path(path)}:{node.lineno}"

    def test_every_public_docstring_begins_with_one_sentence(self) -> None:
        """The first line says what the object is or does."""
        for path in FILES:
            module = parse(path)
            found: list[ast.AST] = [module]
            found += [n for n in module.body if _public(n)]
            for node in list(found):
                if isinstance(node, ast.ClassDef):
                    found += [n for n in node.body if _public(n)]
            for node in found:
                assert isinstance(
                    node,
                    (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef),
                )
                text = ast.get_docstring(node)
                where = f"{module_path(path)}:{getattr(node, 'name', '')}"
                assert text, where
                first = text.partition("\n\n")[0].rstrip()
                assert first.endswith((".", ":", "?")), f"{where}: {first}"


def _public(node: ast.AST) -> bool:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if not isinstance(node, kinds) or node.name.startswith("_"):
        return False
    # What they are variants of has the docstring: a property, a whole function.
    variants = ("overload", ".setter")
    return not any(ast.unparse(d).endswith(variants) for d in node.decorator_list)
