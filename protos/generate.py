"""Generate client/dropnorm/v1 from the protos; with --check, only say whether it is current.

The generator lives in an environment of its own, .venv-protos, made on the first run. It is pinned
at the oldest gRPC and protobuf that dropnorm supports: generated code refuses to run with libraries
older than those it was generated for, and runs with all newer ones. In the project's environment it
would pull protobuf down. Raise these pins and the lower bounds in pyproject.toml together.
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

GENERATOR = ("grpcio-tools==1.71.0", "mypy-protobuf==3.7.0")
PACKAGE = "dropnorm/v1"

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
HOME = ROOT / "client" / PACKAGE
ENVIRONMENT = ROOT / ".venv-protos"

Files = dict[str, bytes]


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate client/dropnorm/v1 from the protos.")
    parser.add_argument("--check", action="store_true", help="change nothing, list what differs")
    arguments = parser.parse_args()

    install_generator()
    generated, present = generate(), read_files(HOME)
    if not arguments.check:
        write_changes(generated, present)
    elif generated != present:
        print("client/dropnorm/v1 is not what the protos say. Run `make protos`. Different are:")
        for name in sorted(generated.keys() | present.keys()):
            if generated.get(name) != present.get(name):
                print(f"  {name}")
        return 1
    return 0


def install_generator() -> None:
    installed = ENVIRONMENT / "installed.txt"
    if installed.exists() and installed.read_text().split() == list(GENERATOR):
        return
    print(f"Installing {' and '.join(GENERATOR)} into {ENVIRONMENT.name}")
    venv.create(ENVIRONMENT, clear=True, with_pip=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *GENERATOR]
    subprocess.run([str(ENVIRONMENT / "bin/python"), *install], check=True)
    installed.write_text("\n".join(GENERATOR))


def generate() -> Files:
    """What belongs into the package, by file name."""
    protoc = [str(ENVIRONMENT / "bin/python"), "-m", "grpc_tools.protoc"]
    for plugin in ("protoc-gen-mypy", "protoc-gen-mypy_grpc"):
        protoc.append(f"--plugin={ENVIRONMENT / 'bin' / plugin}")
    protoc += ["-I", ".", "-I", "third_party"]
    with tempfile.TemporaryDirectory() as output:
        for kind in ("python", "grpc_python", "mypy", "mypy_grpc"):
            protoc.append(f"--{kind}_out={output}")
        protoc += sorted(
            str(path.relative_to(PROTOS)) for path in PROTOS.glob(f"{PACKAGE}/*.proto")
        )
        run = subprocess.run(protoc, cwd=PROTOS, capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stderr)
        files = read_files(Path(output, PACKAGE))
    for name in [name for name in files if name.endswith("_pb2_grpc.py")]:
        if b"Servicer" not in files[name]:  # the plugin writes stubs even where there is no service
            del files[name], files[f"{name}i"]
    files["__init__.py"] = b'"""Generated from the protos by protos/generate.py. Do not edit."""\n'
    return files


def read_files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.glob("*.py*") if path.is_file()}


def write_changes(generated: Files, present: Files) -> None:
    """Touch only what differs, so that nobody who is just importing the package sees it vanish."""
    HOME.mkdir(parents=True, exist_ok=True)
    for name in present.keys() - generated.keys():
        (HOME / name).unlink()
    for name, content in generated.items():
        if content != present.get(name):
            (HOME / name).write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
