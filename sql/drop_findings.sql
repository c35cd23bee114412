-- Forgets what there is of these objects.
create function msal_logout.drop_findings(tenant_id text, object_ids text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  delete from msal_logout.directory_findings f
  where f.tenant_id = drop_findings.tenant_id and f.object_id = any (drop_findings.object_ids);
end
$$;
