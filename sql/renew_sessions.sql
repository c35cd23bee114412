-- A session outlives its row: without it no sign-out would find the row, and a save would prolong that one for ever.
-- Ahead by a tenth, so that not every save writes it. One that has expired stays so, unless the row would have none: its
-- app has seen that it is over. The caller has locked the row, which everyone who locks one of its sessions locks first.
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
      -- keeps sessions_row: sessions_expiry has every session that ends within that time
      and d.expires_at - now() > interval '0' and d.expires_at - (now() + renew_sessions.ttl) < interval '0'
    for update skip locked
  ) due
  where s.issuer = due.issuer and s.session_key = due.session_key
    and s.client_id = renew_sessions.client_id and s.partition_key = renew_sessions.partition_key;
end
$$;
