-- What is there of the accounts that orders name: their sessions, and their rows, which may have no session. After the accounts' locks.
-- The arguments are those of `match_sessions`.
create function msal_logout.match_accounts(
  orders msal_logout.signal_order[], max_each int default null, in_steps boolean default false
) returns setof msal_logout.match
language plpgsql stable as $$
#variable_conflict use_column
begin
  return query
  select o.id, o.purge_scope = 'account', s.account_issuer, s.home_account_id, s.client_id, s.partition_key, s.issuer,
    s.session_key
  from unnest(orders) o
  cross join lateral (
    select * from msal_logout.sessions s
    where s.home_account_id = o.home_account_id -- keeps sessions_account
      and msal_logout.is_account_of(s.account_issuer, o.issuer)
      and (not o.spares_newer or s.issued_at <= o.revoke_before)
      and (not in_steps or s.generation <= (
        select a.last_generation from msal_logout.accounts_in_steps a
        where a.home_account_id = s.home_account_id and a.account_issuer = s.account_issuer and a.id is not distinct from o.id))
    limit max_each offset 0
  ) s
  where o.selector = 'account'
  union all
  select o.id, o.purge_scope = 'account', t.account_issuer, t.home_account_id, t.client_id, t.partition_key, null, null
  from unnest(orders) o
  cross join lateral (
    select * from msal_logout.token_cache t
    where t.home_account_id = o.home_account_id -- keeps token_cache_account
      and msal_logout.is_account_of(t.account_issuer, o.issuer)
      and (not o.spares_newer or not exists (
        select from msal_logout.sessions s
        where s.partition_key = t.partition_key and s.client_id is not distinct from t.client_id -- keeps sessions_row
          and s.issued_at > o.revoke_before and s.expires_at > now()
        offset 0))
      and (not in_steps or t.generation <= (
        select a.last_generation from msal_logout.accounts_in_steps a
        where a.home_account_id = t.home_account_id and a.account_issuer = t.account_issuer and a.id is not distinct from o.id))
    limit max_each offset 0
  ) t
  where o.selector = 'account';
end
$$;
