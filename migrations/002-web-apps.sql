-- What web apps call, in any language. Order of locks, for every function here and in the service's:
--   1. shared: the app's and the tenant's row in `tombstones`
--   2. the sessions' keys   3. the accounts   each sorted, one after the other
--   4. rows of token_cache, then sessions   5. the apps' positions
-- Each step is a statement of its own: under read committed it then sees what was committed while it waited.
--
-- A connection keeps the plans it made, and while the tables are small any index is as good as another. So
-- that none of these plans reads a large part of them later, the functions here leave the planner one index only:
-- `enable_seqscan = off`, and `is not distinct from` as a condition that no index serves.

-- Who calls: inside a `security definer` function `current_user` is the owner, and `session_user` ignores `set role`.
create function msal_logout.caller() returns name
language sql stable as $$
  select coalesce(nullif(current_setting('role'), 'none'), session_user)::name
$$;

-- Whether the caller may use a client id: one that is registered for no role is the owner's (`current_user` here,
-- since only `security definer` functions call this). Simple enough for the planner to put it in place of its call.
create function msal_logout.may_use(registered_role name) returns boolean
language sql stable as $$
  select pg_has_role(msal_logout.caller(), coalesce(registered_role, current_user), 'usage')
$$;

create function msal_logout.authorize(client_id text) returns void
language plpgsql stable as $$
begin
  if client_id is null then
    raise exception 'missing "client_id"' using errcode = 'invalid_parameter_value';
  end if;
  if not msal_logout.may_use(
    (select a.db_role from msal_logout.apps a where a.client_id = authorize.client_id)
  ) then
    raise exception 'client id "%" is not for role "%"', client_id, msal_logout.caller()
      using errcode = 'insufficient_privilege';
  end if;
end
$$;

-- The one place that locks: upserts the rows in the order of (issuer, key), one after the other, and raises
-- `not_after` where one is given. A tombstone stays for a day, longer than any ID token that it could meet, where not said
-- otherwise.
create function msal_logout.hold(
  issuers text[], keys text[], not_afters bigint[], lifetimes interval[] default null
) returns void
language plpgsql as $$
begin
  insert into msal_logout.tombstones as t (issuer, key, not_after, expires_at)
  select l.issuer, l.key, coalesce(max(l.not_after), 0),
    now() + case when max(l.not_after) > 0 then max(coalesce(l.lifetime, '1 day')) else interval '10 minutes' end
  from unnest(issuers, keys, not_afters, lifetimes) as l (issuer, key, not_after, lifetime)
  where l.key is not null
  group by l.issuer, l.key
  order by l.issuer collate "C", l.key collate "C"
  on conflict (issuer, key) do update set
    not_after = greatest(t.not_after, excluded.not_after),
    expires_at = greatest(t.expires_at, excluded.expires_at);
end
$$;

-- Keeps a purge of a whole app or tenant from starting while this transaction stores a login.
create function msal_logout.hold_shared(keys text[]) returns void
language plpgsql as $$
declare
  k text;
begin
  foreach k in array keys loop
    continue when k is null;
    perform from msal_logout.tombstones t where t.issuer = '' and t.key = k for share;
    continue when found;
    insert into msal_logout.tombstones (issuer, key, expires_at) values ('', k, 'infinity')
    on conflict (issuer, key) do nothing;
    perform from msal_logout.tombstones t where t.issuer = '' and t.key = k for share;
  end loop;
end
$$;

-- Takes the locks of one login and tells whether it may be stored: none of its keys was ended at or after
-- its ID token was issued.
create function msal_logout.admit(
  client_id text, account_issuer text, home_account_id text, issuer text, sid text, subject text, issued_at bigint
) returns boolean
language plpgsql as $$
declare
  session_key text := coalesce('sid=' || sid, 'sub=' || subject);
  app_key text := 'app=' || client_id;
  tenant_key text := 'tenant=' || substring(home_account_id from '\.([^.]*)$');
begin
  if issuer is null or issuer = '' or subject is null or subject = '' or issued_at is null or issued_at <= 0 then
    raise exception 'a session needs "issuer", "subject" and "issued_at"' using errcode = 'invalid_parameter_value';
  end if;
  perform msal_logout.hold_shared(array[app_key, tenant_key]);
  perform msal_logout.hold(array[issuer, issuer], array[session_key, 'all=' || subject], array[0, 0]);
  perform msal_logout.hold(
    array[account_issuer, ''], array['account=' || home_account_id, 'account=' || home_account_id], array[0, 0]);
  return not exists (
    select from msal_logout.tombstones t
    where (t.issuer, t.key) in (
      (admit.issuer, session_key), (admit.issuer, 'all=' || admit.subject),
      (admit.account_issuer, 'account=' || admit.home_account_id), ('', 'account=' || admit.home_account_id),
      ('', app_key), ('', tenant_key))
    and t.not_after >= admit.issued_at
  );
end
$$;

create function msal_logout.store_session(
  client_id text, partition_key text, account_issuer text, home_account_id text,
  issuer text, sid text, subject text, issued_at bigint, expires_at timestamptz
) returns void
language plpgsql as $$
#variable_conflict use_column
begin
  insert into msal_logout.sessions as s (
    issuer, session_key, client_id, partition_key, sid, subject, account_issuer, home_account_id, issued_at, expires_at)
  values (
    store_session.issuer,
    coalesce('sid=' || store_session.sid, 'sub=' || store_session.subject),
    store_session.client_id, store_session.partition_key, store_session.sid, store_session.subject,
    store_session.account_issuer, store_session.home_account_id, store_session.issued_at, store_session.expires_at)
  on conflict (issuer, session_key, client_id, partition_key) do update set
    subject = excluded.subject,
    account_issuer = excluded.account_issuer,
    home_account_id = excluded.home_account_id,
    issued_at = greatest(s.issued_at, excluded.issued_at),
    expires_at = greatest(s.expires_at, excluded.expires_at);
end
$$;

-- A session outlives its row: without it no sign-out would find the row, and a save would prolong that one for ever.
-- Ahead by a tenth, so that not every save writes it. Whoever calls has the row, which all others who want to lock one
-- of its sessions take first.
create function msal_logout.renew_sessions(
  client_id text, partition_key text, account_issuer text, home_account_id text, ttl interval
) returns void
language plpgsql as $$
begin
  update msal_logout.sessions s set expires_at = now() + renew_sessions.ttl * 1.1
  from (
    select d.issuer, d.session_key from msal_logout.sessions d
    where d.partition_key = renew_sessions.partition_key and d.client_id is not distinct from renew_sessions.client_id
      and d.account_issuer is not distinct from renew_sessions.account_issuer
      and d.home_account_id is not distinct from renew_sessions.home_account_id
      and d.expires_at < now() + renew_sessions.ttl
    for update skip locked
  ) due
  where s.issuer = due.issuer and s.session_key = due.session_key
    and s.client_id = renew_sessions.client_id and s.partition_key = renew_sessions.partition_key;
end
$$;

create function msal_logout.login(
  client_id text, partition_key text, home_account_id text, issuer text, sid text, subject text, issued_at bigint,
  payload bytea, encoding text, ttl interval, kind text default 'user',
  out accepted boolean, out generation bigint, out version bigint
)
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
declare
  known_sid text := nullif(login.sid, '');
  account_issuer text := case when login.home_account_id = login.subject then login.issuer else '' end;
begin
  perform msal_logout.authorize(login.client_id);
  if login.home_account_id is null or login.home_account_id = '' or login.ttl is null or login.ttl <= interval '0'
    or login.kind is null or login.kind not in ('user', 'obo') then
    raise exception 'a login needs "home_account_id", a positive "ttl" and "kind" user or obo'
      using errcode = 'invalid_parameter_value';
  end if;

  accepted := msal_logout.admit(
    login.client_id, account_issuer, login.home_account_id,
    login.issuer, known_sid, login.subject, login.issued_at);
  if not accepted then
    return;
  end if;

  -- A live row keeps its generation: the account's other sessions go on. An expired one is as good as none.
  insert into msal_logout.token_cache as t (
    client_id, partition_key, kind, account_issuer, home_account_id, payload, encoding, expires_at)
  values (
    login.client_id, login.partition_key, login.kind, account_issuer, login.home_account_id,
    login.payload, login.encoding, now() + login.ttl)
  on conflict (partition_key, client_id) do update set
    kind = excluded.kind,
    account_issuer = excluded.account_issuer,
    home_account_id = excluded.home_account_id,
    generation = case when t.expires_at > now() then t.generation else excluded.generation end,
    version = t.version + 1,
    payload = excluded.payload,
    encoding = excluded.encoding,
    created_at = case when t.expires_at > now() then t.created_at else excluded.created_at end,
    updated_at = excluded.updated_at,
    expires_at = excluded.expires_at
  where t.expires_at <= now()
    or (t.kind, t.account_issuer, t.home_account_id)
      = (excluded.kind, excluded.account_issuer, excluded.home_account_id)
  returning t.generation, t.version into generation, version;
  if not found then
    raise exception 'partition belongs to another account' using errcode = 'ML001';
  end if;

  if version > 1 then -- its other sessions
    perform msal_logout.renew_sessions(
      login.client_id, login.partition_key, account_issuer, login.home_account_id, login.ttl);
  end if;
  perform msal_logout.store_session(
    login.client_id, login.partition_key, account_issuer, login.home_account_id,
    login.issuer, known_sid, login.subject, login.issued_at, now() + login.ttl);
end
$$;

-- The hot path of every app: who may not, finds nothing, and is told so in a second look.
create function msal_logout.load(
  client_id text, partition_key text
) returns table (generation bigint, version bigint, payload bytea, encoding text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
begin
  return query
    select t.generation, t.version, t.payload, t.encoding
    from msal_logout.token_cache t
    where t.partition_key = load.partition_key and t.client_id is not distinct from load.client_id and t.expires_at > now()
      and msal_logout.may_use((select a.db_role from msal_logout.apps a where a.client_id = load.client_id));
  if not found then
    perform msal_logout.authorize(load.client_id);
  end if;
end
$$;

create type msal_logout.saved as (outcome text, version bigint);

-- Never creates a row: what a purge deleted, no refresh that was under way brings back.
create function msal_logout.save(
  client_id text, partition_key text, generation bigint, version bigint, payload bytea, encoding text, ttl interval
) returns msal_logout.saved
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
declare
  new_version bigint;
  owner_issuer text;
  owner_id text;
  conflict boolean;
begin
  perform msal_logout.authorize(save.client_id);
  if save.ttl is null or save.ttl <= interval '0' then
    raise exception 'a save needs a positive "ttl"' using errcode = 'invalid_parameter_value';
  end if;
  update msal_logout.token_cache t set
    version = t.version + 1,
    payload = save.payload,
    encoding = save.encoding,
    updated_at = now(),
    expires_at = now() + save.ttl
  where t.partition_key = save.partition_key and t.client_id is not distinct from save.client_id
    and t.generation = save.generation and t.version = save.version
    and t.expires_at > now() and t.kind <> 'app'
  returning t.version, t.account_issuer, t.home_account_id into new_version, owner_issuer, owner_id;
  if not found then
    conflict := exists (
      select from msal_logout.token_cache t
      where t.partition_key = save.partition_key and t.client_id is not distinct from save.client_id
        and t.generation = save.generation and t.expires_at > now() and t.kind <> 'app');
    return (case when conflict then 'conflict' else 'gone' end, null)::msal_logout.saved;
  end if;

  perform msal_logout.renew_sessions(save.client_id, save.partition_key, owner_issuer, owner_id, save.ttl);
  return ('saved', new_version)::msal_logout.saved;
end
$$;

create function msal_logout.add_session(
  client_id text, partition_key text, issuer text, sid text, subject text, issued_at bigint
) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
declare
  known_sid text := nullif(add_session.sid, '');
  owner_issuer text;
  owner_id text;
  row_expires_at timestamptz;
begin
  perform msal_logout.authorize(add_session.client_id);
  select c.account_issuer, c.home_account_id into owner_issuer, owner_id
  from msal_logout.token_cache c
  where c.partition_key = add_session.partition_key and c.client_id is not distinct from add_session.client_id
    and c.kind <> 'app' and c.expires_at > now();
  if not found then
    return false;
  end if;
  if owner_issuer <> '' and owner_issuer <> add_session.issuer
    or owner_issuer = '' and add_session.subject = owner_id then
    raise exception 'partition belongs to another account' using errcode = 'ML001';
  end if;
  if not msal_logout.admit(
    add_session.client_id, owner_issuer, owner_id,
    add_session.issuer, known_sid, add_session.subject, add_session.issued_at) then
    return false;
  end if;

  -- A sweep by `purge_step` has the row's lock alone.
  select c.expires_at into row_expires_at
  from msal_logout.token_cache c
  where c.partition_key = add_session.partition_key and c.client_id is not distinct from add_session.client_id
    and c.account_issuer = owner_issuer and c.home_account_id = owner_id and c.expires_at > now()
  for share;
  if not found then
    return false;
  end if;
  perform msal_logout.store_session(
    add_session.client_id, add_session.partition_key, owner_issuer, owner_id,
    add_session.issuer, known_sid, add_session.subject, add_session.issued_at, row_expires_at);
  return true;
end
$$;

-- An app lets go of one row of its own accord; no purge, and no record.
create function msal_logout.forget(client_id text, partition_key text, generation bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
declare
  owner_issuer text;
  owner_id text;
begin
  perform msal_logout.authorize(forget.client_id);
  select t.account_issuer, t.home_account_id into owner_issuer, owner_id
  from msal_logout.token_cache t
  where t.partition_key = forget.partition_key and t.client_id is not distinct from forget.client_id
    and t.generation = forget.generation and t.kind <> 'app';
  if not found then
    return false;
  end if;
  perform msal_logout.hold(array[owner_issuer], array['account=' || owner_id], array[0]);
  delete from msal_logout.token_cache t
  where t.partition_key = forget.partition_key and t.client_id is not distinct from forget.client_id
    and t.generation = forget.generation and t.kind <> 'app';
  if not found then
    return false;
  end if;
  delete from msal_logout.sessions s
  where s.partition_key = forget.partition_key and s.client_id is not distinct from forget.client_id;
  return true;
end
$$;

create function msal_logout.session_active(client_id text, issuer text, sid text) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
  perform msal_logout.authorize(session_active.client_id);
  return exists (
    select from msal_logout.sessions s
    where s.issuer = session_active.issuer and s.session_key = 'sid=' || session_active.sid
      and s.client_id is not distinct from session_active.client_id
      and s.expires_at - now() > interval '0'); -- nor the index on the expiry
end
$$;

-- `after` null: the last one alone, whose position is where a new listener begins.
create function msal_logout.ended_since(client_id text, after bigint)
returns table ("position" bigint, issuer text, sid text, subject text, home_account_id text, at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
declare
  seen bigint := coalesce(ended_since.after, (
    select max(l.last_position) - 1 from msal_logout.ended_sessions l where l.client_id = ended_since.client_id));
begin
  perform msal_logout.authorize(ended_since.client_id);
  return query
    select e.last_position - cardinality(e.sessions) + s.n, s.issuer, s.sid, s.subject, s.home_account_id, e.at
    from msal_logout.ended_sessions e
    cross join lateral unnest(e.sessions) with ordinality s (issuer, sid, subject, home_account_id, n)
    where e.client_id = ended_since.client_id and e.last_position > seen
      and e.last_position - cardinality(e.sessions) + s.n > seen
    order by 1;
end
$$;

create function msal_logout.store_app(
  client_id text, partition_key text, payload bytea, encoding text, ttl interval
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  perform msal_logout.authorize(store_app.client_id);
  insert into msal_logout.token_cache as t (client_id, partition_key, kind, payload, encoding, expires_at)
  values (
    store_app.client_id, store_app.partition_key, 'app',
    store_app.payload, store_app.encoding, now() + store_app.ttl)
  on conflict (partition_key, client_id) do update set
    kind = excluded.kind,
    account_issuer = excluded.account_issuer,
    home_account_id = excluded.home_account_id,
    version = t.version + 1,
    payload = excluded.payload,
    encoding = excluded.encoding,
    updated_at = excluded.updated_at,
    expires_at = excluded.expires_at
  where t.kind = 'app' or t.expires_at <= now();
  if not found then
    raise exception 'partition belongs to an account' using errcode = 'ML001';
  end if;
end
$$;
