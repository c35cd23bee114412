#!/bin/sh
# Makes the secrets of compose.yaml, each once: ./deploy/compose/make-secrets.sh
set -eu
cd "$(dirname "$0")/../.."
mkdir -p secrets
# The folder keeps others out. The files must be open to the user in the container, who is another one here.
chmod 700 secrets
umask 022

random() {
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

for name in postgres_password owner_password service_password admin_token; do
  [ -s "secrets/$name" ] || random > "secrets/$name"
done
for who in owner service; do
  printf 'postgres://msal_logout_%s:%s@postgres:5432/msal_logout' "$who" "$(cat "secrets/${who}_password")" \
    > "secrets/${who}_database_url"
done
