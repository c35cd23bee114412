create function msal_logout.reject_partition(
  client_id text, partition_key text, home_account_id text, issuer text
) returns void
language plpgsql stable as $$
#variable_conflict use_column
declare
  owner text;
begin
  select regexp_replace(t.account_issuer, '/[*]$', '') into owner
  from msal_logout.token_cache t
  where t.partition_key = reject_partition.partition_key and t.client_id is not distinct from reject_partition.client_id
    and t.home_account_id = reject_partition.home_account_id and t.account_issuer like '%/*';
  raise exception 'partition belongs to another account' using errcode = 'ML001',
    hint = case when found
      then format('another issuer sent this account id; if both know one user by it, as the owner of the schema: select msal_logout.share_accounts(%L, %L)',
        owner, issuer)
      else 'use the account''s own id as its "partition_key"' end;
end
$$;
