-- Somebody says that a directory has something new: its watcher, at whichever instance, looks soon. `renews`: and renews the
-- subscription by which it is said.
create function msal_logout.hint_directory(tenant_id text, renews boolean default false) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  update msal_logout.directories d set
    is_hinted = true,
    subscription = case when renews then d.subscription || '{"isRenewalWanted": true}' else d.subscription end
  where d.tenant_id = hint_directory.tenant_id and (renews or not d.is_hinted);
end
$$;
