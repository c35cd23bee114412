-- Somebody says that a directory has something new: its watcher, at whichever instance, looks soon.
create function msal_logout.hint_directory(tenant_id text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  update msal_logout.directories d set is_hinted = true
  where d.tenant_id = hint_directory.tenant_id and not d.is_hinted;
end
$$;
