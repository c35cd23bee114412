-- The position of the first account of an order in steps, from after one position up to another, of which something that goes is left.
-- Pairs are compared, as in `delete_some`.
create function msal_logout.find_left(id uuid, after bigint, up_to bigint) returns bigint
language plpgsql stable as $$
begin
  return (
    select a.position from msal_logout.accounts_in_steps a
    where a.id = find_left.id and a.position > find_left.after and a.position <= find_left.up_to -- keeps accounts_in_steps_order
      and (
        exists (
          select from msal_logout.token_cache t
          where t.home_account_id = a.home_account_id and t.account_issuer is not distinct from a.account_issuer
            and (t.home_account_id, t.generation) <= (a.home_account_id, a.last_generation) and t.partition_key <> '' -- keeps token_cache_account
          offset 0
        ) or exists (
          select from msal_logout.sessions s
          where s.home_account_id = a.home_account_id and s.account_issuer is not distinct from a.account_issuer -- keeps sessions_account
            and (s.home_account_id, s.generation) <= (a.home_account_id, a.last_generation)
          offset 0
        ))
    order by a.position limit 1);
end
$$;
