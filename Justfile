export PATH := justfile_directory() / ".venv/bin:" + env("PATH")

[private]
default:
    @just --list

# Serve on http://localhost:8000, with servers of its own
dev *ARGS:
    medisecure dev {{ ARGS }}

# Serve in production; everything comes from the environment
serve *ARGS:
    medisecure serve {{ ARGS }}

# Install the git hooks: style, and the title of each commit
setup:
    pre-commit install

# Run the quick tests, or all of those that you name
test *ARGS:
    pytest {{ if ARGS == "" { "-m 'not slow'" } else { ARGS } }}

# Run everything that a change must pass before a push
check: lint types imports
    pytest
    just fuzz 8

# Run all tests, and print what none of them takes: some lines only where a race is lost
coverage *ARGS:
    pytest --cov {{ if ARGS == "" { "--cov-fail-under=99" } else { ARGS } }}

# Check style
lint:
    ruff check
    ruff format --check

# Repair style
format:
    ruff check --fix
    ruff format

# Check types
types:
    mypy

# Check which folder imports which
imports:
    lint-imports

# Bring the database at DATABASE_URL up to date
migrate:
    medisecure migrate

# Write the migration from DATABASE_URL to the models
migration MESSAGE:
    alembic revision --autogenerate --message {{ quote(MESSAGE) }}
    ruff format persistence/migrations/versions

# Lint openapi.yaml (Spectral, Redocly); compare Scalar with npm
contract-lint: external-tools
    npm run --prefix tests/external lint
    npm run --prefix tests/external vendored

# Test generated clients, a frontend and the reference in Chromium
external: external-tools
    mypy tests/external/*.py
    pytest tests/external

# Kill, stop and cut real servers and services under load
reliability *ARGS:
    pytest tests/reliability {{ ARGS }}

# Run Schemathesis as every role, with the SEED of an earlier run
fuzz CASES="100" *SEED:
    python -m tests.fuzz.run {{ CASES }} {{ SEED }}

# Fail everything at random under load, for MINUTES; the SEED of an earlier run brings its faults
chaos MINUTES="60" *SEED:
    python -m tests.reliability.chaos {{ MINUTES }} {{ SEED }}

# Restart two instances in turns behind HAProxy and nginx, under load
restarts TIMES="20": external-tools
    RESTARTS={{ TIMES }} pytest -s tests/external/test_restarts.py

# Measure the service; needs h2load (Debian: nghttp2-client)
bench *ARGS:
    python -m tests.bench.run {{ ARGS }}

# Time the hot pieces, each alone (pytest-benchmark)
bench-pieces *ARGS:
    pytest tests/bench/pieces.py -n 0 {{ ARGS }}

# Build the published documentation in FOLDER
docs FOLDER="site":
    python docs/build.py {{ quote(FOLDER) }}

# At a release: keep openapi.yaml and the commit as what must not be broken
baseline:
    cp openapi.yaml docs/baseline/openapi.yaml
    git rev-parse HEAD > docs/baseline/RELEASE

# Run the front-door tests of the last release on the new schema
previous-release:
    python -m tests.previous_release

# Write the hashes that the image is built from, after a change of constraints.txt
lock: python-tools
    uv pip compile --quiet --custom-compile-command "just lock" --constraint constraints.txt \
        pyproject.toml --output-file deploy/requirements.txt
    uv pip compile --quiet --custom-compile-command "just lock" --constraint constraints.txt \
        --extra otel pyproject.toml --output-file deploy/full-requirements.txt
    uv pip compile --quiet --custom-compile-command "just lock" --constraint constraints.txt \
        --group pyproject.toml:image --output-file deploy/build-requirements.txt

# Take docs/reference.png anew
picture: external-tools
    python -m tests.external.picture

[private]
python-tools:
    python -m pip install --quiet --requirement tests/external/requirements.txt --constraint constraints.txt

[private]
external-tools: python-tools
    npm install --prefix tests/external --loglevel error
