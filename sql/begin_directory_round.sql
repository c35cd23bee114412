-- From here on a hint means another round. False if another instance holds the lease by now.
create function msal_logout.begin_directory_round(tenant_id text, holder uuid) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  update msal_logout.directories d set begun_at = now(), is_hinted = false
  where d.tenant_id = begin_directory_round.tenant_id and d.holder = begin_directory_round.holder and d.held_until > now();
  return found;
end
$$;
