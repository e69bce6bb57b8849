export PATH := justfile_directory() / ".venv/bin:" + env("PATH")

default:
    @just --list

# Serve on http://localhost:8000 with a PostgreSQL and a Valkey of its own
dev *ARGS:
    medisecure dev {{ ARGS }}

# Serve in production; everything comes from the environment
serve *ARGS:
    medisecure serve {{ ARGS }}

# Prepare a clone for work: hooks that check style and the title of each commit
setup:
    pre-commit install

# Run the quick tests, in less than a minute; or, whole, those that you name
test *ARGS:
    pytest {{ if ARGS == "" { "-m 'not slow'" } else { ARGS } }}

# Run all that every change must pass before it is pushed
check: lint types imports
    pytest
    just fuzz 8

# Run all tests and print each line and branch that none of them takes
coverage *ARGS:
    pytest --cov {{ ARGS }}

# Check style
lint:
    ruff check
    ruff format --check

# Repair style
format:
    ruff check --fix
    ruff format

# Check types; pyproject.toml says of what
types:
    mypy

# Check that api uses persistence uses security, and never back
imports:
    lint-imports

# Bring the database at DATABASE_URL up to date
migrate:
    medisecure migrate

# Write the migration from the migrated database at DATABASE_URL to the models
migration MESSAGE:
    alembic revision --autogenerate --message {{ quote(MESSAGE) }}
    ruff format persistence/migrations/versions

# Lint openapi.yaml with Spectral and Redocly, and compare Scalar with its package
contract-lint: external-tools
    npm run --prefix tests/external lint
    npm run --prefix tests/external vendored

# Generate clients and compile them; drive a frontend, the reference page and the published one in Chromium
external: external-tools
    mypy tests/external/*.py
    pytest tests/external

# Run Schemathesis against the service as every role: CASES an operation, and the SEED of an earlier run
fuzz CASES="100" *SEED:
    python -m tests.fuzz.run {{ CASES }} {{ SEED }}

# Measure the service alone, and print a table; needs h2load (Debian: nghttp2-client)
bench *ARGS:
    python -m tests.bench.run {{ ARGS }}

# Time the hot pieces, each alone; --benchmark-save=NAME keeps the figures, --benchmark-compare compares
bench-pieces *ARGS:
    pytest tests/bench/pieces.py -n 0 {{ ARGS }}

# Build the published documentation, for any web server, in FOLDER
docs FOLDER="site":
    python docs/build.py {{ quote(FOLDER) }}

# At a release: from now on openapi.yaml as it stands must not be broken
baseline:
    cp openapi.yaml docs/baseline/openapi.yaml

# Take docs/reference.png anew
picture: external-tools
    python -m tests.external.picture

[private]
external-tools:
    python -m pip install --quiet --requirement tests/external/requirements.txt --constraint constraints.txt
    npm install --prefix tests/external --loglevel error
