-- Ends every session of each account; as `delete_rows`, after it: that is the order of locks. Keeps sessions_account.
create function msal_logout.delete_sessions(ids uuid[], account_issuers text[], account_ids text[])
returns msal_logout.deletion[]
language plpgsql as $$
declare
  deletions msal_logout.deletion[];
begin
  with gone as (
    delete from msal_logout.sessions s
    using unnest(ids, account_issuers, account_ids) a (id, account_issuer, home_account_id)
    where s.home_account_id = any (array[a.home_account_id]) and s.account_issuer is not distinct from a.account_issuer
    returning (a.id, s.client_id, s.account_issuer, s.home_account_id, false,
      (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.revoked_session)::msal_logout.deletion as d
  )
  select array_agg(g.d) into deletions from gone g;
  return deletions;
end
$$;
