"""Who may import whom, and where the outside world may be touched at all."""

from __future__ import annotations

import ast
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

# What the process was started with is read here, and handed on.
READS_ENVIRONMENT = {
    "plugin.py",  # where a command line begins: handed to the session
    "agent/host_key.py",  # the address that its client has come to
    "agent/jobs/job_ops.py",  # the box's own, which a job inherits in part
    "agent/watchdog.py",  # the box's own, for the command that powers it off
    "providers/digitalocean/provider.py",  # the tokens: its library reads no file
    "subprocess_env.py",  # what the programs that we start inherit
    "remote/connection.py",  # XDG_RUNTIME_DIR, for a socket's path, which is short
}


def name(path: Path) -> str:
    """Return a file's path within the package."""
    return path.relative_to(PACKAGE).as_posix()


def tree(path: Path) -> ast.Module:
    """Return what a file says."""
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(path: Path) -> Iterator[str]:
    """Return the full names of what a file imports, wherever in it."""
    here = ["onebox", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(imported: str, *packages: str) -> bool:
    """Tell whether something belongs to one of these packages."""
    return any(f"{imported}.".startswith(f"{package}.") for package in packages)


def importing(*packages: str) -> set[str]:
    """Return the files that import one of these packages."""
    return {
        name(path)
        for path in FILES
        for found in imports(path)
        if within(found, *packages)
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
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


class TestOneDoorEach:
    def test_invoke(self) -> None:
        """
        Only the plugin and its tasks know Invoke.
        """
        assert {"exit_code.py", "flags.py", "plugin.py", "tasks.py"} == importing(
            "invoke"
        )

    def test_rich(self) -> None:
        """
        Only the screen knows rich.
        """
        assert {"ui/console.py", "ui/progress.py", "ui/screen.py"} == importing("rich")

    def test_toml(self) -> None:
        """
        Only one module imports a parser of TOML.
        """
        found = importing("toml", "tomllib", "tomli")

        assert found == {"settings/toml_file.py"}

    def test_asyncssh(self) -> None:
        """
        The ssh server belongs to the local box's own process.
        """
        found = importing("asyncssh", "asyncio")

        assert found
        assert all(path.startswith("providers/local/") for path in found)

    @pytest.mark.parametrize(
        ("library", "place"),
        [
            ("boto3", "providers/aws/"),
            ("botocore", "providers/aws/"),
            ("google", "providers/gcp/"),
            ("digitalocean", "providers/digitalocean/"),
            ("requests", "providers/digitalocean/"),
        ],
    )
    def test_clouds(self, library: str, place: str) -> None:
        """
        A cloud's library belongs to its own provider.
        """
        assert all(path.startswith(place) for path in importing(library))

    def test_every_dependency_is_declared(self) -> None:
        """
        What is neither ours nor Python's is among the declared dependencies.
        """
        if sys.version_info < (3, 10):
            pytest.skip("sys.stdlib_module_names begins with Python 3.10")
        foreign = {
            found.partition(".")[0] for path in FILES for found in imports(path)
        } - {*sys.stdlib_module_names, "onebox"}
        project = toml.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
        declared = {re.split("[<>=]", line)[0] for line in project["dependencies"]}
        # Modules that are called otherwise, and what a declared one is made of.
        brought = {
            "botocore": "boto3",
            "digitalocean": "python-digitalocean",
            "google": "google-cloud-compute",
            "requests": "python-digitalocean",
            "urllib3": "python-digitalocean",
        }

        assert {brought.get(module, module) for module in foreign} <= declared

    def test_each_provider_has_an_extra_whose_packages_are_default_dependencies(
        self,
    ) -> None:
        """
        The extras are the providers of the table and `all`; none adds a package.
        """
        project = toml.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        everything = f"onebox[{','.join(PROVIDERS)}]"

        assert {*PROVIDERS, "all", "dev"} == set(extras)
        assert [everything] == extras["all"]
        for provider, row in PROVIDERS.items():
            assert set(extras[provider]) <= set(project["dependencies"])
            assert f"pip install 'onebox[{provider}]'" == row.missing_sdk


# What each layer may not import: everything that is built on it.
TOP = ["plugin", "tasks", "runner", "exit_code", "invocation"]
WORK = ["stages", "images", "jobs", "boxes", "context"]
FORBIDDEN = {
    "agent": [
        *TOP,
        *WORK,
        "transfer",
        "remote",
        "providers",
        "settings",
        "store",
        "ui",
    ],
    "providers": [*TOP, *WORK, "transfer", "remote", "ui"],
    "settings": [*TOP, *WORK, "transfer", "remote", "ui"],
    "store": [*TOP, *WORK, "transfer", "remote", "providers", "settings", "ui"],
    "remote": [*TOP, *WORK, "transfer", "settings", "ui"],
    "transfer": [*TOP, *WORK, "settings", "ui"],
    "ui": [*TOP, *WORK, "transfer", "remote", "providers", "settings"],
    "boxes": [*TOP, "stages"],
    "jobs": [*TOP, "stages"],
    "images": [*TOP, "stages"],
    "stages": TOP,
}


class TestDirection:
    @pytest.mark.parametrize("layer", FORBIDDEN)
    def test_a_layer_imports_nothing_above_it(self, layer: str) -> None:
        """
        A layer imports nothing of what is built on it.
        """
        above = [f"onebox.{module}" for module in FORBIDDEN[layer]]
        found = {path for path in importing(*above) if path.startswith(f"{layer}/")}

        assert set() == found

    def test_no_module_has_the_name_of_a_public_name(self) -> None:
        """
        A submodule's import would replace a public name of the package.
        """
        modules = {
            path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py")
        }

        assert not modules & set(onebox.__all__)

    def test_small_modules_stand_alone(self) -> None:
        """
        Errors, signals, formatting and the invocation need nothing of ours.
        """
        for file in ("errors.py", "signals.py", "formatting.py", "invocation.py"):
            ours = [i for i in imports(PACKAGE / file) if within(i, "onebox")]
            assert [] == ours, file

    def test_agent(self) -> None:
        """
        The agent is the standard library and itself: it runs on any box.
        """
        if sys.version_info < (3, 10):
            pytest.skip("sys.stdlib_module_names begins with Python 3.10")
        for path in (PACKAGE / "agent").rglob("*.py"):
            for found in imports(path):
                own = within(found, "onebox.agent")
                library = found.partition(".")[0] in sys.stdlib_module_names
                assert own or library, f"{name(path)}: {found}"

    def test_only_the_table_and_their_packages_name_the_clouds(self) -> None:
        """
        Code outside `onebox/providers` names no cloud: it reads the table.

        Names in docstrings and comments are allowed, and so are names that are not
        the provider: folders of credentials and headers of the metadata server.
        """
        pattern = re.compile(rf"(?<![.\w-])(?:{'|'.join(CLOUDS)})(?![\w-])")
        found = {
            f"{name(path)}: {text}"
            for path in FILES
            if not name(path).startswith("providers/")
            for text in code_words(tree(path))
            if pattern.search(text)
        }

        assert set() == found

    def test_providers_are_named_once(self) -> None:
        """
        Nobody imports a provider: the table finds it by its name.
        """
        for provider in PROVIDERS:
            found = importing(f"onebox.providers.{provider}")
            own = f"providers/{provider}/"
            assert all(path.startswith(own) for path in found), found


class TestTouchingTheWorld:
    def test_no_print(self) -> None:
        """
        Only the screen prints.
        """
        found = {
            name(path)
            for path in FILES
            for call in calls(path)
            if isinstance(call.func, ast.Name) and call.func.id in ("print", "input")
        }

        assert found <= {"ui/screen.py"}

    def test_no_shell(self) -> None:
        """
        No command of ours goes through a shell.
        """
        found = {
            name(path)
            for path in FILES
            for call in calls(path)
            if any(word.arg == "shell" for word in call.keywords)
            or ast.unparse(call.func) in ("os.system", "os.popen")
            or ast.unparse(call.func).startswith("subprocess.get")
        }

        assert set() == found

    def test_environment(self) -> None:
        """
        The environment is handed in; it is read in the places listed above alone.
        """
        found = {
            name(path)
            for path in FILES
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Attribute)
            and ast.unparse(node)
            in ("os.environ", "os.environb", "os.getenv", "os.putenv")
        }

        assert READS_ENVIRONMENT == found

    def test_no_code_from_data(self) -> None:
        """
        Nothing is run or loaded that came as data.
        """
        found = {
            name(path)
            for path in FILES
            for call in calls(path)
            if ast.unparse(call.func)
            in ("eval", "exec", "compile", "pickle.loads", "pickle.load")
        }

        assert set() == found


class TestNothingSwallowed:
    def test_no_bare_except(self) -> None:
        """
        What is caught is named; everything is caught only to be raised again.
        """
        for path in FILES:
            for node in ast.walk(tree(path)):
                if not isinstance(node, ast.ExceptHandler):
                    continue
                assert node.type is not None, f"{name(path)}:{node.lineno}"
                caught = ast.unparse(node.type)
                if "BaseException" in caught or caught.startswith("(Exception"):
                    raised = [n for n in ast.walk(node) if isinstance(n, ast.Raise)]
                    assert raised, f"{name(path)}:{node.lineno}"

    def test_first_lines(self) -> None:
        """
        Every public thing says in one sentence what it is or does.
        """
        for path in FILES:
            module = tree(path)
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
                where = f"{name(path)}:{getattr(node, 'name', '')}"
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
