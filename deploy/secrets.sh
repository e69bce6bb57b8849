#!/bin/sh
# Make the secrets of compose.yaml, once: ./secrets.sh [FOLDER]. What is there stays as it is.
# certificate.pem (the chain, then its key) is yours to add.
set -eu
umask 022
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder" # the files can be read, because the containers' users must; the folder cannot
cd "$folder"

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
keep() { [ -e "$1" ] || cat > "$1"; }

random | keep owner_password
random | keep service_password
random | keep redis_password
random | keep secret_key
random | keep audit_key
echo "postgresql://medisecure:$(cat owner_password)@postgresql:5432/medisecure" | keep owner_url
echo "postgresql://medisecure_app:$(cat service_password)@postgresql:5432/medisecure" | keep database_url
echo "redis://:$(cat redis_password)@valkey:6379/0" | keep redis_url
echo "requirepass $(cat redis_password)" | keep valkey.conf
