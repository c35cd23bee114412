-- One PostgreSQL today, a cluster with one migration: every table has a single unique key, and it contains
-- the column the table would be distributed by; no foreign keys, identity columns or triggers.
-- What is looked up compares byte by byte: ids are no words, and an index in a language's order would be
-- slower, and broken by an upgrade of the system's locales.

-- Registered apps. `last_position` numbers the ended sessions of an app; it is raised as the last act of a
-- transaction and stays locked until the commit, so positions become visible in their own order.
create table msal_logout.apps (
  client_id text collate "C" primary key,
  db_role name, -- null: nobody but the schema's owner
  last_position bigint not null default 0
);

create sequence msal_logout.generations;

create table msal_logout.token_cache (
  client_id text collate "C" not null check (client_id <> ''),
  partition_key text collate "C" not null check (partition_key <> ''),
  kind text not null check (kind in ('user', 'obo', 'app')),
  -- A bare `sub` says nothing without its issuer: such an account is the pair. Empty for ids from client
  -- info, which are unique in the world.
  account_issuer text collate "C" not null default '',
  home_account_id text collate "C",
  -- The part of `<uid>.<utid>` after the last dot.
  tenant_id text collate "C" generated always as (substring(home_account_id from '\.([^.]*)$')) stored,
  generation bigint not null default nextval('msal_logout.generations'),
  version bigint not null default 1,
  payload bytea not null,
  payload_bytes int not null generated always as (octet_length(payload)) stored, -- for those who may not read it
  encoding text not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  expires_at timestamptz not null,
  primary key (partition_key, client_id),
  check ((kind = 'app') = (home_account_id is null))
)
-- A usual payload (up to 8 KB) stays in its row: four pieces of it in a table beside would have to be looked up by
-- each reading and deleted by each sign-out.
with (toast_tuple_target = 8160);
create index token_cache_account on msal_logout.token_cache (home_account_id);
-- A purge of many goes by `generation`: the order in which rows came, which is closest to where they lie. The accounts
-- are counted without a look at the rows.
create index token_cache_tenant on msal_logout.token_cache (tenant_id, generation) include (account_issuer, home_account_id);
create index token_cache_client on msal_logout.token_cache (client_id, generation) include (account_issuer, home_account_id);
create index token_cache_expiry on msal_logout.token_cache (expires_at);

create table msal_logout.sessions (
  issuer text collate "C" not null check (issuer <> ''),
  -- 'sid=…', or 'sub=…' for a login without a sid: a sid never meets an equal subject.
  session_key text collate "C" not null,
  client_id text collate "C" not null,
  partition_key text collate "C" not null,
  sid text collate "C",
  subject text collate "C" not null check (subject <> ''),
  account_issuer text collate "C" not null,
  home_account_id text collate "C" not null,
  issued_at bigint not null, -- the ID token's `iat`, seconds since 1970
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  primary key (issuer, session_key, client_id, partition_key),
  check (session_key = coalesce('sid=' || sid, 'sub=' || subject))
);
-- Not (issuer, subject): a plan made while the table was small might look up a sid by its issuer alone.
create index sessions_subject on msal_logout.sessions (subject);
create index sessions_row on msal_logout.sessions (partition_key, client_id);
create index sessions_account on msal_logout.sessions (home_account_id);
create index sessions_sid on msal_logout.sessions (sid) where sid is not null;
create index sessions_expiry on msal_logout.sessions (expires_at);

-- Lock rows and tombstones in one: whoever logs in, signs out or purges upserts the same rows first, in one
-- order. `not_after` 0 is a lock alone; else no ID token issued up to that second is accepted under the key.
create table msal_logout.tombstones (
  issuer text collate "C" not null,
  key text collate "C" not null, -- 'sid=…', 'sub=…', 'all=…', 'account=…', 'app=…', 'tenant=…'
  not_after bigint not null default 0,
  expires_at timestamptz not null, -- without an index, which every sign-out would pay for: `clean_up` walks the table
  primary key (issuer, key)
);

-- The record of what was done and why; for logout tokens also the replay guard, since `id` is then derived
-- from (issuer, jti).
create table msal_logout.purges (
  id uuid primary key,
  at timestamptz not null default now(),
  source text not null check (source in ('backchannel', 'frontchannel', 'admin')),
  issuer text collate "C",
  client_id text collate "C",
  jti text,
  sid text collate "C",
  subject text collate "C",
  home_account_id text collate "C",
  tenant_id text collate "C",
  reason text,
  actor text,
  status text not null default 'done' check (status in ('running', 'done')),
  request_hash bytea, -- what an Idempotency-Key stands for
  total bigint not null default 0, -- accounts that matched at the start
  last_generation bigint, -- of the rows that were there when the purge began
  -- Of an app's or a tenant's purge: the generation up to which it was swept, null once that is over; and the first
  -- one that the sweep had to leave.
  swept_to bigint,
  left_from bigint,
  accounts bigint not null default 0,
  sessions bigint not null default 0,
  rows bigint not null default 0,
  -- {"<client id>": {"accounts", "sessions", "rows"}}; an account counts in each app in which a row or a session of it went
  by_client jsonb not null default '{}',
  finished_at timestamptz
);
create index purges_at on msal_logout.purges (at, id);
create index purges_running on msal_logout.purges (at) where status = 'running';

-- What `ended_since` tells an app. One row for what a transaction ended in it: a row for each session would cost
-- every sign-out.
create type msal_logout.told_session as (issuer text, sid text, subject text, home_account_id text);
create table msal_logout.ended_sessions (
  client_id text collate "C" not null,
  last_position bigint not null, -- of the last of `sessions`; the others' count down from it
  sessions msal_logout.told_session[] not null,
  at timestamptz not null default now(),
  primary key (client_id, last_position)
)
-- The sessions of a batch stay in their row, uncompressed: that would take longer than it is worth.
with (toast_tuple_target = 8160);
alter table msal_logout.ended_sessions alter sessions set storage external;

-- One row, locked by the instance that is cleaning up.
create table msal_logout.clean_up_turn (
  id int primary key check (id = 1),
  next_page bigint not null default 0 -- of `tombstones`
);
insert into msal_logout.clean_up_turn values (1);
