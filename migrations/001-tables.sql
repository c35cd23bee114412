-- The tables. What writes them stands in sql/, one function a file.
-- One PostgreSQL today, a cluster with one migration: every table has a single unique key, and it contains the column
-- that the table would be distributed by; no sequences, foreign keys, identity columns or triggers.
-- What is looked up compares byte by byte: ids are no words, and an index in a language's order would be slower, and
-- broken by an upgrade of the system's locales.

-- Registered apps. `last_position` numbers the revoked sessions of an app. It is raised as the last act of a transaction
-- and stays locked until the commit, so positions become visible in their own order.
create table msal_logout.apps (
  client_id text collate "C" primary key,
  db_role name, -- null: nobody but the schema's owner
  last_position bigint not null default 0
);

-- Origins whose issuers share accounts with those of another one.
create table msal_logout.issuer_groups (
  origin text collate "C" primary key,
  issuer_group text collate "C" not null
);

-- The roles that `register_service` was called for, so that re-created functions are granted to them again.
create table msal_logout.service_roles (
  db_role name primary key
);

-- The text of the functions in sql/ that is in force, as its digest: they are created anew when it has changed.
create table msal_logout.functions (
  digest text primary key,
  version text not null -- of the release that created them
);

-- A target: what a sign-out deletes from.
create table msal_logout.token_cache (
  client_id text collate "C" not null,
  partition_key text collate "C" not null,
  kind text not null,
  -- Whose account it is. A bare `sub` says nothing without its issuer. An id from client info is what its issuer says: the group of
  -- issuers that share accounts, as '<origin>/*' (`issuer_group`). Empty of an app's own rows.
  account_issuer text collate "C" not null default '',
  home_account_id text collate "C",
  -- The part of `<uid>.<utid>` after the last dot. A bare `sub` has no tenant, also with a dot in it.
  tenant_id text collate "C" generated always as (
    case when account_issuer = '' or account_issuer like '%/*' then substring(home_account_id from '[.]([^.]*)$') end) stored,
  -- Marks a row apart from its successor under the same key, and rows that came before a purge from later ones. Microseconds
  -- since 1970: a sequence may lie behind its rows after a restore or a replication.
  generation bigint not null default (extract(epoch from clock_timestamp()) * 1000000)::bigint,
  version bigint not null default 1,
  payload bytea not null,
  payload_bytes int not null generated always as (octet_length(payload)) stored, -- for those who may not read it
  encoding text not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  expires_at timestamptz not null,
  primary key (partition_key, client_id),
  -- The functions check all of it first: the detail of a violated constraint would quote the payload.
  check (client_id <> '' and partition_key <> ''),
  check (kind in ('user', 'obo', 'app')),
  check ((kind = 'app') = (home_account_id is null))
)
-- A usual payload (up to 8 KB) stays in its row: four pieces of it in a table beside would have to be looked up by each
-- reading and deleted by each sign-out.
with (toast_tuple_target = 8160);
-- With the newest of an account at its end, which a sign-out in steps begins with.
create index token_cache_account on msal_logout.token_cache (home_account_id, generation);
-- A sweep goes by `generation`: the order in which rows came, which is closest to where they lie. The accounts are counted
-- without a look at the rows.
create index token_cache_tenant on msal_logout.token_cache (tenant_id, generation) include (account_issuer, home_account_id);
create index token_cache_client on msal_logout.token_cache (client_id, generation) include (account_issuer, home_account_id);
create index token_cache_expiry on msal_logout.token_cache (expires_at);

-- The registry: who is signed in where. Today a session lives with its row of the token cache.
create table msal_logout.sessions (
  issuer text collate "C" not null,
  -- 'sid=...', or 'sub=...' for a login without a sid: a sid never meets an equal subject.
  session_key text collate "C" not null,
  client_id text collate "C" not null,
  partition_key text collate "C" not null,
  sid text collate "C",
  subject text collate "C" not null,
  account_issuer text collate "C" not null,
  home_account_id text collate "C" not null,
  -- The directory object, for signals that name one; lower case.
  oid text collate "C",
  tid text collate "C",
  issued_at bigint not null, -- the ID token's `iat`, seconds since 1970
  -- As a row's, of the last login with this session: it may be later than its row's. A sign-out in steps spares what came after its first.
  generation bigint not null default (extract(epoch from clock_timestamp()) * 1000000)::bigint,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  primary key (session_key, issuer, client_id, partition_key),
  check (issuer <> '' and subject <> ''),
  check (session_key = coalesce('sid=' || sid, 'sub=' || subject))
)
-- After a checkpoint PostgreSQL logs the whole of each page that is changed first, but not what is empty in it. A session's rows lie
-- in as many pages as it has apps: full ones were the largest part of the log of a sign-out.
with (fillfactor = 33);
-- Not (issuer, subject): a plan made while the table was small might look up a sid by its issuer alone.
create index sessions_subject on msal_logout.sessions (subject);
create index sessions_row on msal_logout.sessions (partition_key, client_id);
create index sessions_account on msal_logout.sessions (home_account_id, generation);
create index sessions_object on msal_logout.sessions (tid, oid) where oid is not null;
-- By the home of the account, where that is not what the ID token named: guests, and logins without a `tid`. For watchers of directories.
create index sessions_home on msal_logout.sessions (
  (case when account_issuer like '%/*' then substring(home_account_id from '[.]([^.]*)$') end), home_account_id
) where tid is distinct from case when account_issuer like '%/*' then substring(home_account_id from '[.]([^.]*)$') end;
create index sessions_expiry on msal_logout.sessions (expires_at);

-- Locks and tombstones in one: a login and a sign-out upsert the same rows first, in one order.
create table msal_logout.tombstones (
  issuer text collate "C" not null,
  key text collate "C" not null, -- 'sid=...', 'sub=...', 'all=...', 'object=...', 'account=...', 'app=...', 'tenant=...'
  -- No ID token issued up to that second is accepted under the key; 0 is a lock alone.
  revoke_before bigint not null default 0,
  -- Of an account: the same for logins without a sid. Nothing says which session they belong to.
  sidless_revoke_before bigint not null default 0,
  expires_at timestamptz not null, -- without an index, which every sign-out would pay for: `clean_up` walks the table
  primary key (key, issuer)
);

-- The guard against duplicates of orders that may leave no record, or whose id an operator chose; of others it is the record.
create table msal_logout.seen_orders (
  id uuid primary key,
  expires_at timestamptz not null
);
create index seen_orders_expiry on msal_logout.seen_orders (expires_at);

-- What a verified signal asks for; the members are those of src/sign-out.ts.
create type msal_logout.signal_order as (
  id uuid,
  source text,
  selector text, -- 'session', 'subject', 'account' or 'object'
  issuer text, -- of an account: '' for ids from client info, of any issuer; null if it is not known
  sid text,
  subject text,
  home_account_id text,
  tenant_id text,
  object_id text,
  client_id text, -- the app that a logout token is for
  jti text,
  revoke_before bigint,
  purge_scope text, -- 'account' or 'session'
  spares_newer boolean, -- a session that was issued after `revoke_before` lives, also if its sid is named
  once boolean, -- guarded against duplicates by its id
  record_unmatched boolean,
  remember_seconds int, -- how long a login that is under way is still rejected
  reason text,
  actor text,
  request_hash bytea
);

-- What a sign-out or a purge did, and why.
create table msal_logout.records (
  id uuid primary key,
  at timestamptz not null default now(),
  source text not null,
  issuer text collate "C",
  client_id text collate "C",
  jti text,
  sid text collate "C",
  subject text collate "C",
  home_account_id text collate "C",
  tenant_id text collate "C",
  object_id text collate "C",
  revoke_before bigint,
  reason text,
  actor text,
  status text not null default 'done', -- or 'running', of a sweep; 'unfinished', of a sign-out in steps
  request_hash bytea, -- what an Idempotency-Key stands for
  -- The accounts that were matched, side by side. A sweep keeps none.
  account_issuers text[] not null default '{}',
  account_ids text[] not null default '{}',
  accounts bigint not null default 0,
  sessions bigint not null default 0,
  rows bigint not null default 0,
  -- Side by side: what went in an app. Of a sign-out at once an app stands there once for each account of which a row or a session
  -- went in it, so that `client_accounts` is null.
  clients text[] collate "C" not null default '{}',
  client_accounts int[],
  client_sessions int[] not null default '{}',
  client_rows int[] not null default '{}',
  -- Of what goes on: the accounts that matched at the start, and `accounts` counts those that are over; by the scope of the session at the end.
  total bigint not null default 0,
  last_generation bigint, -- of what goes on: the newest that was there when it began
  swept_to bigint, -- of a sweep: how far this round is; of a sign-out in steps: the position of the last account that is over
  one_row_each boolean, -- of a sweep: no account has more than one row, so that each is over with its row; null before the first step
  noted_to bigint, -- of a sign-out in steps: the position of the last account that is noted
  -- Of a sign-out in steps: what any process needs to go on with it, until it is done; and its last step.
  order_in_steps msal_logout.signal_order,
  stepped_at timestamptz,
  finished_at timestamptz
);
create index records_at on msal_logout.records (at);
create index records_account on msal_logout.records using gin (account_ids);
-- Of orders that a person gave, or that named an account: few, among the many of tokens.
create index records_actor on msal_logout.records (at, id) where actor is not null;
create index records_named on msal_logout.records (home_account_id) where home_account_id is not null;
create index records_under_way on msal_logout.records (at) where status <> 'done';

-- The accounts of sign-outs in steps that are not done: all that the order matched when it began. What a login must know of them, and what
-- the next step goes on with: in the record they would be written anew by each step.
create table msal_logout.accounts_in_steps (
  id uuid not null, -- of the order, and of its record
  position bigint not null, -- a step goes on where the last one ended, and walks over none that is over
  account_issuer text collate "C" not null,
  home_account_id text collate "C" not null,
  is_whole boolean not null, -- all of it goes, and not the matched sessions alone
  last_generation bigint, -- the newest that was there when it was noted, which goes; null: it is not noted yet
  primary key (home_account_id, account_issuer, id)
)
-- Each is changed once: with room in its page no index is.
with (fillfactor = 50);
create index accounts_in_steps_order on msal_logout.accounts_in_steps (id, position);

-- A session that was ended, as its app sees it.
create type msal_logout.revoked_session as (issuer text, sid text, subject text, home_account_id text);

-- What `ended_since` returns. One row for what a transaction ended in an app: a row for each session would cost every
-- sign-out.
create table msal_logout.revoked_sessions (
  client_id text collate "C" not null,
  last_position bigint not null, -- of the last of `sessions`; the others' count down from it
  sessions msal_logout.revoked_session[] not null,
  at timestamptz not null default now(),
  primary key (client_id, last_position)
)
-- The sessions of a batch stay in their row, uncompressed: that would take longer than it is worth.
with (toast_tuple_target = 8160);
alter table msal_logout.revoked_sessions alter sessions set storage external;

-- What logins have ended, until `clean_up` gives it positions. They are locked until the commit, and an app may leave its transaction
-- open: no sign-out of that app could be done meanwhile.
create table msal_logout.unpublished_sessions (
  client_id text collate "C" not null,
  id uuid not null default gen_random_uuid(),
  sessions msal_logout.revoked_session[] not null,
  primary key (client_id, id)
);

-- What is watched, a row for each tenant: how far its watcher is, and what it came to.
create table msal_logout.directories (
  tenant_id text collate "C" primary key,
  -- The lease: one instance watches at a time.
  holder uuid,
  held_until timestamptz,
  due_at timestamptz not null default now(), -- the next round
  begun_at timestamptz, -- the last one
  is_hinted boolean not null default false, -- somebody says that there is something new
  -- The delta query: where it goes on (what came before is committed), what it was made with, and when it last answered.
  delta_link text,
  settings text,
  delta_at timestamptz,
  delta_failure jsonb, -- {at, code, detail, count}
  sweep_due_at timestamptz not null default now(),
  swept_at timestamptz,
  sweep_failure jsonb,
  good_at timestamptz, -- when both were last well
  watched bigint, -- objects in the cache, as of the last sweep
  unwatched bigint, -- accounts that no sweep finds
  rounds jsonb not null default '[]', -- what the last ones did, the newest first
  breaker jsonb, -- open: why; null: closed
  decision jsonb, -- what an operator last made of it
  subscription jsonb -- for change notifications
);

-- What a watcher has seen of an object and could not, or must not, act upon yet; and what it has acted upon of late.
create table msal_logout.directory_findings (
  tenant_id text collate "C" not null,
  object_id text collate "C" not null,
  event text not null, -- 'disabled', 'deleted', 'revoked' or 'passwordChanged'
  revoke_before bigint not null default 0, -- of a time that the directory names; else 0
  detail text not null, -- what it said
  -- 'doubted': one look more is needed. 'held' by the breaker, until an operator has it 'released' or 'dropped'. 'dry_run': it
  -- would be done. 'done': a later word of the same may be an old one.
  status text not null,
  round uuid not null, -- that saw it last
  seen_at timestamptz not null, -- at first
  primary key (tenant_id, object_id)
);

-- One row, locked by the instance that is cleaning up.
create table msal_logout.clean_up_state (
  id int primary key,
  next_page bigint not null default 0 -- of `tombstones`
);
insert into msal_logout.clean_up_state (id) values (1);

-- What `save` returns.
create type msal_logout.saved as (outcome text, version bigint);

-- What an order matched: a session, or (without a `session_key`) a row of an account that it names.
create type msal_logout.match as (
  id uuid, -- of the order
  is_whole boolean, -- every row of the account goes, not those alone that no other session uses
  account_issuer text, home_account_id text,
  client_id text, partition_key text,
  issuer text, session_key text
);

-- An account that an order matched.
create type msal_logout.matched_account as (
  id uuid, -- of the order
  is_whole boolean,
  account_issuer text, home_account_id text,
  revoke_before bigint, remember_seconds int, -- of the order
  is_named boolean -- by the order; `revoke_before` null: a lock alone
);

-- A row that was deleted, or a session that was ended.
create type msal_logout.deletion as (
  id uuid, -- of the order
  client_id text, account_issuer text, home_account_id text,
  is_row boolean,
  session msal_logout.revoked_session
);

revoke all on schema msal_logout from public;
revoke all on all tables in schema msal_logout from public;
