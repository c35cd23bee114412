-- The sessions that orders end, by what they name: a session, a subject or a directory object. A sid decides alone, since
-- subjects may be pairwise. A login stored without a sid is ended by its subject.
-- Each look-up is a lateral sub-select with `offset 0`, which keeps it from becoming a join; `is not distinct from` keeps an
-- index out. What stays is the one index meant, also for a plan that was made while the tables were small.
-- `max_each`: so many of each order by each look-up; null: all. `in_steps`: of a sign-out in steps, only what was there when
-- its account was noted; in an index by the order's id it would have to look at all of its accounts.
create function msal_logout.match_sessions(
  orders msal_logout.signal_order[], max_each int default null, in_steps boolean default false
)
returns setof msal_logout.match
language plpgsql stable as $$
#variable_conflict use_column
begin
  return query
  select o.id, o.purge_scope = 'account', s.account_issuer, s.home_account_id, s.client_id, s.partition_key, s.issuer,
    s.session_key
  from unnest(orders) o
  cross join lateral (
    select * from msal_logout.sessions s
    where s.issuer = o.issuer and s.session_key = 'sid=' || o.sid -- keeps the primary key
      and (not o.spares_newer or s.issued_at <= o.revoke_before)
      and (not in_steps or s.generation <= (
        select a.last_generation from msal_logout.accounts_in_steps a
        where a.home_account_id = s.home_account_id and a.account_issuer = s.account_issuer and a.id is not distinct from o.id))
    limit max_each offset 0
  ) s
  union all
  select o.id, o.purge_scope = 'account', s.account_issuer, s.home_account_id, s.client_id, s.partition_key, s.issuer,
    s.session_key
  from unnest(orders) o
  cross join lateral (
    select * from msal_logout.sessions s
    where s.issuer = o.issuer and s.session_key = 'sub=' || o.subject -- keeps the primary key
      and s.issued_at <= o.revoke_before
      and (not in_steps or s.generation <= (
        select a.last_generation from msal_logout.accounts_in_steps a
        where a.home_account_id = s.home_account_id and a.account_issuer = s.account_issuer and a.id is not distinct from o.id))
    limit max_each offset 0
  ) s
  where o.selector = 'session'
  union all
  select o.id, o.purge_scope = 'account', s.account_issuer, s.home_account_id, s.client_id, s.partition_key, s.issuer,
    s.session_key
  from unnest(orders) o
  cross join lateral (
    select * from msal_logout.sessions s
    where s.subject = o.subject and s.issuer is not distinct from o.issuer -- keeps sessions_subject
      and (not o.spares_newer or s.issued_at <= o.revoke_before)
      and (not in_steps or s.generation <= (
        select a.last_generation from msal_logout.accounts_in_steps a
        where a.home_account_id = s.home_account_id and a.account_issuer = s.account_issuer and a.id is not distinct from o.id))
    limit max_each offset 0
  ) s
  where o.selector = 'subject'
  union all
  select o.id, o.purge_scope = 'account', s.account_issuer, s.home_account_id, s.client_id, s.partition_key, s.issuer,
    s.session_key
  from unnest(orders) o
  cross join lateral (
    select * from msal_logout.sessions s
    where s.tid = o.tenant_id and s.oid = o.object_id -- keeps sessions_object
      and (not o.spares_newer or s.issued_at <= o.revoke_before)
      and (not in_steps or s.generation <= (
        select a.last_generation from msal_logout.accounts_in_steps a
        where a.home_account_id = s.home_account_id and a.account_issuer = s.account_issuer and a.id is not distinct from o.id))
    limit max_each offset 0
  ) s
  where o.selector = 'object';
end
$$;
