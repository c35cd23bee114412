-- What the service calls. The order of locks stands in 002-web-apps.sql.

create type msal_logout.logout as (
  id uuid,
  source text,
  issuer text,
  client_id text,
  jti text,
  sid text,
  subject text,
  not_after bigint, -- ends logins whose ID token was issued up to then, seconds since 1970
  whole_subject boolean, -- every session of the subject, not that sid alone
  purge_scope text, -- 'account' or 'session'
  reason text,
  actor text,
  request_hash bytea
);

-- A session that a logout ends.
create type msal_logout.matched_session as (
  id uuid, -- the purge that ends it
  issuer text, session_key text, client_id text, partition_key text, account_issuer text, home_account_id text
);

-- A row that was deleted, or a session that was ended; of the latter, what its app is told.
create type msal_logout.deletion as (
  id uuid, -- of the purge
  client_id text, account_issuer text, home_account_id text,
  is_row boolean,
  told msal_logout.told_session
);

-- What each purge deleted, in all and by app. In an app an account counts of which a row or a session went.
create function msal_logout.counted(deletions msal_logout.deletion[])
returns table (id uuid, sessions bigint, rows bigint, by_client jsonb)
language sql stable as $$
  select c.id, sum(c.sessions)::bigint, sum(c.rows)::bigint,
    jsonb_object_agg(c.client_id, jsonb_build_object('accounts', c.accounts, 'sessions', c.sessions, 'rows', c.rows))
  from (
    select a.id, a.client_id, count(a.home_account_id) as accounts, sum(a.sessions)::bigint as sessions, sum(a.rows)::bigint as rows
    from (
      select d.id, d.client_id, d.home_account_id, count(*) filter (where d.is_row) as rows, count(*) filter (where not d.is_row) as sessions
      from unnest(deletions) d
      group by d.id, d.client_id, d.account_issuer, d.home_account_id
    ) a
    group by a.id, a.client_id
  ) c
  group by c.id
$$;

-- Numbers the ended sessions for `ended_since`. The last act of its transaction: from the first position on
-- until the commit nobody else is given one, so that a reader who has seen a position has seen all before it.
create function msal_logout.announce(deletions msal_logout.deletion[]) returns void
language plpgsql as $$
begin
  if deletions is null then
    return;
  end if;
  with told as (
    select d.client_id, array_agg(d.told) as sessions from unnest(deletions) d where not d.is_row group by d.client_id
  ), raised as (
    insert into msal_logout.apps as a (client_id, last_position)
    select t.client_id, cardinality(t.sessions) from told t order by t.client_id collate "C"
    on conflict (client_id) do update set last_position = a.last_position + excluded.last_position
    returning a.client_id, a.last_position
  )
  insert into msal_logout.ended_sessions (client_id, last_position, sessions)
  select r.client_id, r.last_position, t.sessions from raised r join told t on t.client_id = r.client_id;
  if found then
    -- No payload: anyone connected can listen.
    perform pg_notify('msal_logout', '');
  end if;
end
$$;

-- The sessions that logouts end: by the sid; those stored without one by the subject; and all of a subject.
create function msal_logout.matching(logouts msal_logout.logout[], purge_scope text)
returns setof msal_logout.matched_session
language sql stable as $$
  select l.id, s.issuer, s.session_key, s.client_id, s.partition_key, s.account_issuer, s.home_account_id
  from unnest(logouts) l
  cross join lateral (
    select * from msal_logout.sessions s where s.issuer = l.issuer and s.session_key = 'sid=' || l.sid offset 0
  ) s
  where l.purge_scope = matching.purge_scope
  union all
  select l.id, s.issuer, s.session_key, s.client_id, s.partition_key, s.account_issuer, s.home_account_id
  from unnest(logouts) l
  cross join lateral (
    select * from msal_logout.sessions s where s.issuer = l.issuer and s.session_key = 'sub=' || l.subject offset 0
  ) s
  where l.purge_scope = matching.purge_scope and l.sid is not null and not l.whole_subject and s.issued_at <= l.not_after
  union all
  select l.id, s.issuer, s.session_key, s.client_id, s.partition_key, s.account_issuer, s.home_account_id
  from unnest(logouts) l
  cross join lateral (
    select * from msal_logout.sessions s
    where s.issuer is not distinct from l.issuer and s.subject = l.subject offset 0
  ) s
  where l.purge_scope = matching.purge_scope and l.whole_subject and s.issued_at <= l.not_after
$$;

-- Makes a batch of logouts so, in one transaction: tombstones, sessions, rows, records. A tombstone is
-- written even where nothing matches, since the login may be under way.
-- Of two logouts of one batch that end the same account, the first by id is told of what was deleted.
-- The planner is kept to one plan, since planning anew for each batch takes longer than the work; and to look-ups
-- by the one index meant, since this plan may be made while the tables are small: `offset 0` keeps a look-up from
-- becoming a join, `is not distinct from` keeps an index out, and with `= any (array[…])` leaves a hash join nothing to
-- hash by, for which it would read an index whole. Hash joins are for the arrays. Few statements: each takes some
-- 50 µs to begin.
create function msal_logout.sign_out(batch jsonb, patient boolean default true)
returns table (id uuid, replayed boolean, accounts bigint, sessions bigint, rows bigint, by_client jsonb)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  logouts msal_logout.logout[];
  fresh msal_logout.logout[];
  -- Side by side: the accounts that are ended whole, and the purge that each is counted to.
  ids uuid[];
  account_issuers text[];
  account_ids text[];
  matched msal_logout.matched_session[]; -- of purge scope 'session'
  lock_issuers text[];
  lock_keys text[];
  deletions msal_logout.deletion[];
begin
  select array_agg(l) into logouts from jsonb_populate_recordset(null::msal_logout.logout, batch) l;
  if current_setting('synchronous_commit') = 'off' then
    -- Whatever database or role are set to: who is told 200 must find it on disk.
    perform set_config('synchronous_commit', 'on', true);
  end if;
  if not patient then
    -- A lock that somebody holds is the matter of one logout, which then goes alone and patiently.
    perform set_config('lock_timeout', '100ms', true);
  end if;

  -- Besides the sid the subject: a login stored without a sid is ended by it.
  -- A front-channel call is unsigned, and anybody can make sids up: an hour is enough for a login under way.
  perform msal_logout.hold(
    array_agg(l.issuer), array_agg(k.key), array_agg(l.not_after),
    array_agg(case l.source when 'frontchannel' then interval '1 hour' end))
  from unnest(logouts) l
  cross join lateral (
    values ('sid=' || l.sid), (case when l.whole_subject then 'all=' else 'sub=' end || l.subject)
  ) k (key);

  -- After the locks, so that the same token in another transaction has committed its record.
  select array_agg(d.l) into fresh
  from (select distinct on (l.id) l from unnest(logouts) l order by l.id) d
  where not exists (select from msal_logout.purges p where p.id = (d.l).id offset 0);

  select array_agg(a.id), array_agg(a.account_issuer), array_agg(a.home_account_id), array_agg('account=' || a.home_account_id)
  into ids, account_issuers, account_ids, lock_keys
  from (
    select distinct on (m.account_issuer, m.home_account_id) m.id, m.account_issuer, m.home_account_id
    from msal_logout.matching(fresh, 'account') m
    order by m.account_issuer, m.home_account_id, m.id
  ) a;
  lock_issuers := account_issuers;
  if exists (select from unnest(fresh) l where l.purge_scope = 'session') then
    select array_agg(m.m), lock_issuers || array_agg((m.m).account_issuer), lock_keys || array_agg('account=' || (m.m).home_account_id)
    into matched, lock_issuers, lock_keys
    from (
      select distinct on (m.issuer, m.session_key, m.client_id, m.partition_key) m
      from msal_logout.matching(fresh, 'session') m
      order by m.issuer, m.session_key, m.client_id, m.partition_key, m.id
    ) m;
  end if;
  if lock_keys is not null then
    perform msal_logout.hold(lock_issuers, lock_keys, null);
  end if;

  if ids is not null then
    with gone as (
      delete from msal_logout.token_cache t
      using unnest(ids, account_issuers, account_ids) a (id, account_issuer, home_account_id)
      where t.home_account_id = any (array[a.home_account_id]) and t.account_issuer is not distinct from a.account_issuer
      returning (a.id, t.client_id, t.account_issuer, t.home_account_id, true, null)::msal_logout.deletion as d
    ), gone_sessions as (
      delete from msal_logout.sessions s
      using unnest(ids, account_issuers, account_ids) a (id, account_issuer, home_account_id)
      where s.home_account_id = any (array[a.home_account_id]) and s.account_issuer is not distinct from a.account_issuer
        and (select count(*) from gone) is not null -- the rows first: that is the order of locks
      returning (a.id, s.client_id, s.account_issuer, s.home_account_id, false,
        (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.told_session)::msal_logout.deletion as d
    )
    select array_agg(g.d) into deletions from (select * from gone union all select * from gone_sessions) g;
  end if;

  if matched is not null then
    -- a sweep by `purge_step` takes a row before its sessions
    perform from msal_logout.token_cache t
    join unnest(matched) m
      on t.partition_key = any (array[m.partition_key]) and t.client_id is not distinct from m.client_id
    for update of t;
    with gone as (
      delete from msal_logout.sessions s
      using unnest(matched) m
      where s.partition_key = any (array[m.partition_key]) and s.client_id is not distinct from m.client_id
        and s.session_key is not distinct from m.session_key and s.issuer is not distinct from m.issuer
      returning (m.id, s.client_id, s.account_issuer, s.home_account_id, false,
        (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.told_session)::msal_logout.deletion as d
    )
    select deletions || array_agg(g.d) into deletions from gone g;
    with gone as (
      delete from msal_logout.token_cache t
      using (
        select distinct on (m.client_id, m.partition_key) m.*
        from unnest(matched) m
        order by m.client_id, m.partition_key, m.id
      ) m
      where t.partition_key = any (array[m.partition_key]) and t.client_id is not distinct from m.client_id
        and t.account_issuer = m.account_issuer and t.home_account_id is not distinct from m.home_account_id
        and not exists (
          select from msal_logout.sessions s
          where s.partition_key = t.partition_key and s.client_id is not distinct from t.client_id
            and s.expires_at > now() offset 0)
      returning (m.id, t.client_id, t.account_issuer, t.home_account_id, true, null)::msal_logout.deletion as d
    )
    select deletions || array_agg(g.d) into deletions from gone g;
  end if;

  return query
  with accounts_of as (
    select a.id, count(*) as accounts
    from (
      select * from unnest(ids) i (id)
      union all
      select m.id from unnest(matched) m group by m.id, m.account_issuer, m.home_account_id
    ) a
    group by a.id
  ), results as materialized (
    select l.*, coalesce(a.accounts, 0) as accounts,
      coalesce(c.sessions, 0) as sessions, coalesce(c.rows, 0) as rows, coalesce(c.by_client, '{}') as by_client
    from unnest(fresh) l
    left join accounts_of a on a.id = l.id
    left join msal_logout.counted(deletions) c on c.id = l.id
  ), recorded as (
    insert into msal_logout.purges (
      id, source, issuer, client_id, jti, sid, subject, reason, actor, request_hash,
      total, accounts, sessions, rows, by_client, finished_at)
    select r.id, r.source, r.issuer, r.client_id, r.jti, r.sid, r.subject, r.reason, r.actor, r.request_hash,
      r.accounts, r.accounts, r.sessions, r.rows, r.by_client, now()
    from results r
    -- a front-channel call is unsigned: one that ends nothing leaves no record
    where r.source <> 'frontchannel' or r.accounts > 0
    on conflict (id) do nothing
  )
  select r.id, false, r.accounts, r.sessions, r.rows, r.by_client from results r
  union all
  select l.id, true, 0, 0, 0, '{}' from unnest(logouts) l where not exists (select from unnest(fresh) f where f.id = l.id);

  perform msal_logout.announce(deletions);
end
$$;

create function msal_logout.add_counts(a jsonb, b jsonb) returns jsonb
language sql immutable as $$
  select coalesce(jsonb_object_agg(c.client_id, c.counts), '{}') from (
    select e.client_id, jsonb_build_object(
      'accounts', sum((e.counts ->> 'accounts')::bigint),
      'sessions', sum((e.counts ->> 'sessions')::bigint),
      'rows', sum((e.counts ->> 'rows')::bigint)) as counts
    from (select * from jsonb_each(a) union all select * from jsonb_each(b)) e (client_id, counts)
    group by e.client_id
  ) c
$$;

-- Begins an operator's purge of an account, an app or a tenant: exactly one of `home_account_id`,
-- `client_id`, `tenant_id` is given; `issuer` tells equal bare subjects apart. `purge_step` carries it out.
-- Outcomes: 'running', 'dry_run' (only counted), 'replayed' (the id is known), 'ambiguous' (two issuers'
-- accounts bear the id), 'too_many' (more than `max_accounts`).
create function msal_logout.start_purge(
  id uuid, home_account_id text, issuer text, client_id text, tenant_id text,
  reason text, actor text, dry_run boolean, max_accounts bigint, request_hash bytea,
  out outcome text, out accounts bigint, out sessions bigint, out rows bigint, out by_client jsonb
)
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
declare
  issuers text[];
begin
  if num_nonnulls(start_purge.home_account_id, start_purge.client_id, start_purge.tenant_id) <> 1 then
    raise exception 'a purge needs exactly one selector' using errcode = 'invalid_parameter_value';
  end if;
  if exists (select from msal_logout.purges p where p.id = start_purge.id) then
    outcome := 'replayed';
    return;
  end if;

  if start_purge.home_account_id is not null then
    select array_agg(distinct a.account_issuer) into issuers
    from (
      select t.account_issuer from msal_logout.token_cache t
      where t.home_account_id = start_purge.home_account_id and t.kind <> 'app'
      union all
      select s.account_issuer from msal_logout.sessions s where s.home_account_id = start_purge.home_account_id
    ) a
    where start_purge.issuer is null or a.account_issuer in ('', start_purge.issuer);
    accounts := coalesce(cardinality(issuers), 0);
    if accounts > 1 then
      outcome := 'ambiguous';
      return;
    end if;
  else
    select count(*) into accounts
    from (
      select t.account_issuer, t.home_account_id from msal_logout.token_cache t
      where t.client_id = start_purge.client_id and t.home_account_id is not null
      union
      select t.account_issuer, t.home_account_id from msal_logout.token_cache t
      where t.tenant_id = start_purge.tenant_id and t.home_account_id is not null
    ) a;
  end if;

  if start_purge.dry_run then
    outcome := 'dry_run';
    with found as (
      select t.client_id, t.partition_key from msal_logout.token_cache t
      where t.home_account_id = start_purge.home_account_id and t.account_issuer = any (issuers)
      union all
      select t.client_id, t.partition_key from msal_logout.token_cache t where t.client_id = start_purge.client_id
      union all
      select t.client_id, t.partition_key from msal_logout.token_cache t where t.tenant_id = start_purge.tenant_id
    )
    select
      (select count(*) from found),
      (select coalesce(jsonb_object_agg(c.client_id, jsonb_build_object('accounts', 0, 'sessions', 0, 'rows', c.n)), '{}')
        from (select f.client_id, count(*) as n from found f group by f.client_id) c),
      case when start_purge.home_account_id is null then (
        select count(*) from found f
        join msal_logout.sessions s
          on s.partition_key = any (array[f.partition_key]) and s.client_id is not distinct from f.client_id)
      else (
        select count(*) from msal_logout.sessions s
        where s.home_account_id = start_purge.home_account_id and s.account_issuer = any (issuers))
      end
    into rows, by_client, sessions;
    return;
  end if;
  if accounts > start_purge.max_accounts then
    outcome := 'too_many';
    return;
  end if;

  -- From here on no login whose ID token is older is stored, and none is half stored.
  perform msal_logout.hold(
    array[case when start_purge.home_account_id is null then '' else coalesce(issuers[1], start_purge.issuer, '') end],
    array[coalesce('account=' || start_purge.home_account_id, 'app=' || start_purge.client_id,
      'tenant=' || start_purge.tenant_id)],
    array[extract(epoch from clock_timestamp())::bigint]);
  insert into msal_logout.purges (
    id, at, source, issuer, client_id, home_account_id, tenant_id, reason, actor, status, request_hash, total,
    last_generation, swept_to)
  values (
    -- Time and generation when the lock was had: a row that was there is older, one that comes later is let be.
    start_purge.id, clock_timestamp(), 'admin', coalesce(start_purge.issuer, nullif(issuers[1], '')),
    start_purge.client_id, start_purge.home_account_id, start_purge.tenant_id,
    start_purge.reason, start_purge.actor, 'running', start_purge.request_hash, accounts,
    nextval('msal_logout.generations'), case when start_purge.home_account_id is null then 0 end)
  on conflict (id) do nothing;
  outcome := case when found then 'running' else 'replayed' end;
end
$$;

-- One step of a running purge, of what was there when it began: true when another one is due, false when this one was the
-- last, null when another instance is at it or has done it: each purge has one last step.
-- An app or a tenant is swept first, by the accounts of up to `max_rows` rows, in the order in which the rows came. The
-- sweep takes no locks but the rows' own, which whoever stores or deletes a row's session takes first, and waits for none
-- of them. What it had to leave goes in the steps after it, one account in each, under the account's lock, as the purge of
-- a single account does. A session goes with its row.
create function msal_logout.purge_step(id uuid, max_rows int) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
  p msal_logout.purges;
  up_to bigint;
  due bigint; -- rows of the sweep's range
  left_over bigint; -- rows of its accounts that somebody held
  account_issuers text[];
  account_ids text[];
  is_done boolean := false;
  deletions msal_logout.deletion[];
  purged_accounts bigint;
  unfinished jsonb; -- accounts that have rows left, by app: counted in the step that takes the last one
begin
  select r.* into p from msal_logout.purges r where r.id = purge_step.id and r.status = 'running' for update skip locked;
  if not found then
    return null;
  end if;

  -- Pairs are compared, and differences, since a bound of `generation` alone could be looked up in any index that it is
  -- in, among the rows of all tenants or apps; and a condition on `kind`, which no index has, keeps accounts from being
  -- looked up by reading one whole.
  if p.swept_to is not null then
    select max(f.generation), count(f.home_account_id) into up_to, due -- an app's own rows have no account
    from (
      (select t.generation, t.home_account_id from msal_logout.token_cache t
      where (t.tenant_id, t.generation) > (p.tenant_id, p.swept_to)
        and (t.tenant_id, t.generation) <= (p.tenant_id, p.last_generation)
      order by t.tenant_id, t.generation limit purge_step.max_rows)
      union all
      (select t.generation, t.home_account_id from msal_logout.token_cache t
      where (t.client_id, t.generation) > (p.client_id, p.swept_to)
        and (t.client_id, t.generation) <= (p.client_id, p.last_generation)
      order by t.client_id, t.generation limit purge_step.max_rows)
    ) f;
  end if;
  if up_to is not null then
    with accounts as (
      select d.account_issuer, d.home_account_id
      from (
        select t.account_issuer, t.home_account_id, t.generation from msal_logout.token_cache t
        where (t.tenant_id, t.generation) > (p.tenant_id, p.swept_to) and (t.tenant_id, t.generation) <= (p.tenant_id, up_to)
        union all
        select t.account_issuer, t.home_account_id, t.generation from msal_logout.token_cache t
        where (t.client_id, t.generation) > (p.client_id, p.swept_to) and (t.client_id, t.generation) <= (p.client_id, up_to)
      ) d
      where d.home_account_id is not null
      group by d.account_issuer, d.home_account_id
      order by min(d.generation)
    ), found as materialized (
      select t.ctid as place
      from accounts a
      join msal_logout.token_cache t
        on t.home_account_id = any (array[a.home_account_id]) and t.account_issuer is not distinct from a.account_issuer
      where (p.client_id is null or t.client_id = p.client_id) and t.generation - p.last_generation <= 0
    ), locked as (
      select t.ctid as place from found f join msal_logout.token_cache t on t.ctid = f.place
      for update of t skip locked
    ), gone as (
      delete from msal_logout.token_cache t using locked l where t.ctid = l.place
      returning t.client_id, t.partition_key, t.account_issuer, t.home_account_id, t.generation
    ), gone_sessions as (
      delete from msal_logout.sessions s using gone g
      where s.partition_key = any (array[g.partition_key]) and s.client_id is not distinct from g.client_id
        and s.account_issuer is not distinct from g.account_issuer
        and s.home_account_id is not distinct from g.home_account_id
      returning (p.id, s.client_id, s.account_issuer, s.home_account_id, false,
        (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.told_session)::msal_logout.deletion as d
    )
    select
      array_agg(g.d),
      due - (select count(*) from gone g where g.generation > p.swept_to and g.generation <= up_to),
      (select count(*) from found) - (select count(*) from gone)
    into deletions, due, left_over
    from (
      select (p.id, g.client_id, g.account_issuer, g.home_account_id, true, null)::msal_logout.deletion as d from gone g
      union all
      select * from gone_sessions
    ) g;
    if p.left_from is null and due > 0 then
      p.left_from := least(
        (select min(t.generation) from msal_logout.token_cache t
        where (t.tenant_id, t.generation) > (p.tenant_id, p.swept_to) and (t.tenant_id, t.generation) <= (p.tenant_id, up_to)),
        (select min(t.generation) from msal_logout.token_cache t
        where (t.client_id, t.generation) > (p.client_id, p.swept_to) and (t.client_id, t.generation) <= (p.client_id, up_to)
          and t.kind <> 'app'));
    end if;
  else
    select array_agg(a.account_issuer), array_agg(a.home_account_id) into account_issuers, account_ids
    from (
      select t.account_issuer, t.home_account_id from msal_logout.token_cache t
      where t.home_account_id = p.home_account_id and t.account_issuer in ('', p.issuer)
        and t.kind <> 'app' and t.generation - p.last_generation <= 0
      union
      select s.account_issuer, s.home_account_id from msal_logout.sessions s
      where s.home_account_id = p.home_account_id and s.account_issuer in ('', p.issuer)
        and not exists (
          select from msal_logout.token_cache t
          where t.partition_key = s.partition_key and t.client_id is not distinct from s.client_id offset 0)
      union
      (select t.account_issuer, t.home_account_id from msal_logout.token_cache t
      where (t.tenant_id, t.generation) >= (p.tenant_id, p.left_from)
        and (t.tenant_id, t.generation) <= (p.tenant_id, p.last_generation)
      order by t.tenant_id, t.generation limit 1)
      union
      (select t.account_issuer, t.home_account_id from msal_logout.token_cache t
      where (t.client_id, t.generation) >= (p.client_id, p.left_from)
        and (t.client_id, t.generation) <= (p.client_id, p.last_generation) and t.kind <> 'app'
      order by t.client_id, t.generation limit 1)
    ) a;
    is_done := account_ids is null;

    perform msal_logout.hold(array_agg(a.issuer), array_agg('account=' || a.id), null)
    from unnest(account_issuers, account_ids) a (issuer, id);
    with gone as (
      delete from msal_logout.token_cache t
      using unnest(account_issuers, account_ids) a (account_issuer, home_account_id)
      where t.home_account_id = any (array[a.home_account_id]) and t.account_issuer = a.account_issuer
        and (p.client_id is null or t.client_id = p.client_id) and t.generation - p.last_generation <= 0
      returning (p.id, t.client_id, t.account_issuer, t.home_account_id, true, null)::msal_logout.deletion as d
    ), gone_of_app as (
      delete from msal_logout.token_cache t
      where is_done and t.client_id = p.client_id and t.kind = 'app'
      returning (p.id, t.client_id, t.account_issuer, t.home_account_id, true, null)::msal_logout.deletion as d
    )
    select array_agg(g.d) into deletions from (select * from gone union all select * from gone_of_app) g;
    with gone as (
      delete from msal_logout.sessions s
      using unnest(account_issuers, account_ids) a (account_issuer, home_account_id)
      where s.home_account_id = any (array[a.home_account_id]) and s.account_issuer = a.account_issuer
        and (p.client_id is null or s.client_id = p.client_id)
        and not exists (
          select from msal_logout.token_cache t
          where t.partition_key = s.partition_key and t.client_id is not distinct from s.client_id offset 0)
      returning (p.id, s.client_id, s.account_issuer, s.home_account_id, false,
        (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.told_session)::msal_logout.deletion as d
    )
    select deletions || array_agg(g.d) into deletions from gone g;
  end if;

  select count(*) into purged_accounts
  from (
    select from unnest(deletions) d where d.home_account_id is not null group by d.account_issuer, d.home_account_id
  ) a;
  if left_over > 0 then
    with touched as materialized (
      select a.client_id, a.account_issuer, a.home_account_id, array(
        select t.client_id from msal_logout.token_cache t
        where t.home_account_id = a.home_account_id and t.account_issuer = a.account_issuer
          and (p.client_id is null or t.client_id = p.client_id)
          and t.kind <> 'app' and t.generation - p.last_generation <= 0 offset 0
      ) as left_in
      from (
        select d.client_id, d.account_issuer, d.home_account_id from unnest(deletions) d
        group by d.client_id, d.account_issuer, d.home_account_id
      ) a
    )
    select
      purged_accounts - (select count(*) from (
        select from touched t where cardinality(t.left_in) > 0 group by t.account_issuer, t.home_account_id) a),
      (select jsonb_object_agg(c.client_id, jsonb_build_object('accounts', -c.n, 'sessions', 0, 'rows', 0)) from (
        select t.client_id, count(*) as n from touched t where t.client_id = any (t.left_in) group by t.client_id) c)
    into purged_accounts, unfinished;
  end if;

  update msal_logout.purges r set
    swept_to = up_to,
    left_from = p.left_from,
    accounts = r.accounts + purged_accounts,
    sessions = r.sessions + coalesce(c.sessions, 0),
    rows = r.rows + coalesce(c.rows, 0),
    by_client = msal_logout.add_counts(msal_logout.add_counts(r.by_client, c.by_client), unfinished),
    status = case when is_done then 'done' else 'running' end,
    finished_at = case when is_done then now() end
  from (select) one left join msal_logout.counted(deletions) c on true
  where r.id = p.id;
  perform msal_logout.announce(deletions);
  return not is_done;
end
$$;

-- Removes what has expired, at most `max_rows` of each kind, skipping whatever somebody holds; returns how
-- many went, or null where another instance has its turn.
create function msal_logout.clean_up(max_rows int, keep_purges interval, keep_ended interval) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  pages bigint := pg_relation_size('msal_logout.tombstones') / current_setting('block_size')::int;
  -- All of them within an hour of turns ten seconds apart.
  span bigint := least(greatest(pages / 360, 100), 1000);
  first_page bigint;
  gone bigint;
  total bigint := 0;
begin
  select t.next_page into first_page from msal_logout.clean_up_turn t for update skip locked;
  if not found then
    return null;
  end if;
  delete from msal_logout.token_cache t where (t.partition_key, t.client_id) in (
    select d.partition_key, d.client_id from msal_logout.token_cache d
    where d.expires_at <= now() order by d.expires_at limit max_rows for update skip locked);
  get diagnostics gone = row_count;
  total := total + gone;
  delete from msal_logout.sessions s where (s.issuer, s.session_key, s.client_id, s.partition_key) in (
    select d.issuer, d.session_key, d.client_id, d.partition_key from msal_logout.sessions d
    where d.expires_at <= now() order by d.expires_at limit max_rows for update skip locked);
  get diagnostics gone = row_count;
  total := total + gone;
  delete from msal_logout.tombstones t where t.ctid = any (array(
    select d.ctid from msal_logout.tombstones d
    where d.ctid >= format('(%s,0)', first_page)::tid and d.ctid < format('(%s,0)', first_page + span)::tid
      and d.expires_at <= now()
    for update skip locked));
  get diagnostics gone = row_count;
  total := total + gone;
  delete from msal_logout.ended_sessions e where (e.client_id, e.last_position) in (
    -- the oldest have the lowest positions; an index on `at` would cost every sign-out
    select d.client_id, d.last_position
    from msal_logout.apps a
    cross join lateral (
      select o.client_id, o.last_position, o.at from msal_logout.ended_sessions o
      where o.client_id = a.client_id order by o.last_position limit max_rows
    ) d
    where d.at <= now() - keep_ended limit max_rows);
  get diagnostics gone = row_count;
  total := total + gone;
  delete from msal_logout.purges p where p.id in (
    select d.id from msal_logout.purges d
    where d.at <= now() - keep_purges and d.status = 'done' order by d.at limit max_rows for update skip locked);
  get diagnostics gone = row_count;
  update msal_logout.clean_up_turn
  set next_page = case when first_page + span >= pages then 0 else first_page + span end;
  return total + gone;
end
$$;
