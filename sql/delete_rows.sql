-- Deletes every row of each account, in every app. The arrays stand side by side; each account stands in them once.
-- `= any (array[...])` and `is not distinct from` leave a hash join nothing to hash by, for which it would read an index
-- whole: they keep token_cache_account.
create function msal_logout.delete_rows(ids uuid[], account_issuers text[], account_ids text[])
returns msal_logout.deletion[]
language plpgsql as $$
declare
  deletions msal_logout.deletion[];
begin
  with gone as (
    delete from msal_logout.token_cache t
    using unnest(ids, account_issuers, account_ids) a (id, account_issuer, home_account_id)
    where t.home_account_id = any (array[a.home_account_id]) and t.account_issuer is not distinct from a.account_issuer
    returning (a.id, t.client_id, t.account_issuer, t.home_account_id, true, null)::msal_logout.deletion as d
  )
  select array_agg(g.d) into deletions from gone g;
  return deletions;
end
$$;
