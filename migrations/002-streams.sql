-- How far each stream of security events is (OpenID Shared Signals Framework 1.0), at whichever instance.
create table msal_logout.streams (
  name text collate "C" primary key, -- in the configuration
  -- The lease: one instance polls a stream and manages it at a time.
  holder uuid,
  held_until timestamptz,
  -- What is known of it: src/stream-store.ts has the members. Nothing of it is a secret.
  state jsonb not null default '{}'
);

revoke all on msal_logout.streams from public;
