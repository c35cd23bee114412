// What a sign-out, a login, a save and a load touch and write, in pages and bytes: counts, which no machine's speed changes. The
// PostgreSQL of npm is built without lz4 and zstd; another server can be named by --database=<URL>.
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import type pg from 'pg'
import { migrate } from '../src/migrate.ts'
import { batchOf } from '../src/store.ts'
import { makeOrder, nowSeconds } from '../test/fixtures/orders.ts'
import { apps } from './database.ts'
import { sidOf } from './provider.ts'

const issuer = 'https://issuer.example/tenant/v2.0'
const group = 'https://issuer.example/*'
const tenant = 'f3b1a1de-0000-4000-8000-000000000001'
const sessions = 15_000
/** So few that hardly two of them meet in a page: as among the millions of production. */
const operationsEach = 60
const warmUp = 8
const samples = 64
const oldRecords = 30_000
/** Those of an hour, where one in twelve is between two checkpoints. */
const oldTombstones = 12 * operationsEach

interface Variant {
  readonly name: string
  /** What is different in the schema. */
  readonly ddl?: string
  /** What is different in the server's settings; each is one that a reload takes. */
  readonly settings?: Readonly<Record<string, string>>
  /** What the app stores. */
  readonly payload?: 'plain' | 'gzip'
  /** The payload in a table of its own, which the schema does not have: as triggers and statements of the bench's would keep it. */
  readonly isBeside?: boolean
  /** Rows of a session lie side by side, as of one sign-in to all apps; default apart. */
  readonly isAdjacent?: boolean
}

/** With the target that PostgreSQL has by itself, whatever can be is compressed or moved out; the other columns can be neither. */
const payloadOf = (storage: string) =>
  `do $$
  declare
    k text;
  begin
    for k in select attname from pg_attribute
      where attrelid = 'msal_logout.token_cache'::regclass and attnum > 0 and attstorage = 'x' loop
      execute format('alter table msal_logout.token_cache alter %I set storage plain', k);
    end loop;
  end
  $$;
  alter table msal_logout.token_cache alter payload set storage ${storage};
  alter table msal_logout.token_cache reset (toast_tuple_target)`

/** A save changes a row of this table alone. */
const tableOfPayloads = `create table msal_logout.payloads (
    partition_key text collate "C", client_id text collate "C", generation bigint, version bigint, payload bytea, encoding text,
    expires_at timestamptz, primary key (partition_key, client_id)
  ) with (toast_tuple_target = 8160);
  create index payloads_expiry on msal_logout.payloads (expires_at);
  create function msal_logout.move_payload() returns trigger language plpgsql as $$
  begin
    insert into msal_logout.payloads
    values (new.partition_key, new.client_id, new.generation, new.version, new.payload, new.encoding, new.expires_at);
    new.payload := '';
    return new;
  end
  $$;
  create function msal_logout.drop_payload() returns trigger language plpgsql as $$
  begin
    delete from msal_logout.payloads p where p.partition_key = old.partition_key and p.client_id = old.client_id;
    return null;
  end
  $$;
  create trigger move_payload before insert on msal_logout.token_cache for each row execute function msal_logout.move_payload();
  create trigger drop_payload after delete on msal_logout.token_cache for each row execute function msal_logout.drop_payload();
  drop index msal_logout.token_cache_expiry`

const variants: readonly Variant[] = [
  { name: 'as it is' },
  { name: 'as it is, the rows of a session side by side', isAdjacent: true },
  ...[100, 50, 25].map((fillfactor) => ({
    name: `fillfactor ${fillfactor} of sessions`,
    ddl: `alter table msal_logout.sessions set (fillfactor = ${fillfactor})`
  })),
  { name: 'wal_compression pglz', settings: { wal_compression: 'pglz' } },
  { name: 'wal_compression lz4', settings: { wal_compression: 'lz4' } },
  { name: 'wal_compression zstd', settings: { wal_compression: 'zstd' } },
  { name: 'payload in the row, pglz', ddl: payloadOf('main') },
  { name: 'payload in the row, lz4', ddl: payloadOf('main'), settings: { default_toast_compression: 'lz4' } },
  { name: 'payload in TOAST, pglz', ddl: payloadOf('extended') },
  { name: 'payload in TOAST, not compressed', ddl: payloadOf('external') },
  { name: 'payload in a table of its own', ddl: tableOfPayloads, isBeside: true },
  { name: 'payload gzip by the client', payload: 'gzip' },
  { name: 'payload gzip by the client, wal_compression lz4', payload: 'gzip', settings: { wal_compression: 'lz4' } },
  { name: 'payload gzip by the client, wal_compression zstd', payload: 'gzip', settings: { wal_compression: 'zstd' } }
]

const operationNames = ['sign-out of three apps', 'login', 'save', 'save and renewal', 'load'] as const
type OperationName = (typeof operationNames)[number]

/** Of one operation, in the mean. */
interface Counts {
  /** Pages that were read or changed, each as often as it was asked for. */
  readonly buffers: number
  readonly walRecords: number
  readonly fullPageImages: number
  readonly walBytes: number
}

/** What the log holds of a table or an index, per operation. */
interface RelationCounts {
  readonly relation: string
  readonly records: number
  readonly images: number
  readonly imageBytes: number
  readonly otherBytes: number
}

/**
 * @param pool as a superuser, on a server that nobody else uses: its settings are changed
 * @param only the beginning of the names of the variants; default all that the server is built for
 */
export async function measureStorage(pool: pg.Pool, only = '') {
  const measured = []
  for (const variant of variants.filter(({ name }) => name.startsWith(only))) {
    if (await isPossible(pool, variant)) {
      measured.push(await measureVariant(pool, variant))
    } else {
      console.log(`\n${variant.name}: this server is built without it`)
    }
  }
  await pool.query('alter system reset all')
  const { rows } = await pool.query<{ server_version: string }>('show server_version')
  return { postgres: rows[0]?.server_version ?? '', sessions, operationsEach, variants: measured }
}

async function isPossible(pool: pg.Pool, { settings = {} }: Variant): Promise<boolean> {
  const { rows } = await pool.query<{ name: string; enumvals: string[] }>(
    'select name, enumvals from pg_settings where enumvals is not null'
  )
  return Object.entries(settings).every(([name, value]) =>
    rows.some((row) => row.name === name && row.enumvals.includes(value))
  )
}

async function measureVariant(pool: pg.Pool, variant: Variant) {
  await configure(pool, { full_page_writes: 'on', ...variant.settings })
  await pool.query('drop schema if exists msal_logout cascade')
  await migrate(pool)
  await pool.query(variant.ddl ?? '')
  const payloads = samplePayloads(variant.payload ?? 'plain')
  await fill(pool, payloads, variant)
  const sizes = await sizesOf(pool)

  const after: Partial<Record<OperationName, Counts & { relations: RelationCounts[] }>> = {}
  const without: Partial<Record<OperationName, Counts>> = {}
  let next = 0
  const operationsOf = (name: OperationName, count: number) =>
    Array.from({ length: count }, () => operationOf(name, next++, payloads, variant))
  for (const name of operationNames) {
    await count(pool, operationsOf(name, warmUp)) // plans are made, and marks set on pages of the catalogue
    const operations = operationsOf(name, operationsEach)
    await pool.query('checkpoint')
    after[name] = await count(pool, operations)
  }
  await configure(pool, { full_page_writes: 'off', ...variant.settings })
  for (const name of operationNames) {
    const operations = operationsOf(name, operationsEach)
    const { relations, ...counts } = await count(pool, operations)
    // Now and then an index writes a page whole by itself.
    if (counts.fullPageImages > 0.1) {
      throw new Error(`"${name}" wrote ${counts.fullPageImages} full pages, although none should be`)
    }
    without[name] = counts
  }
  await configure(pool, {})
  say(variant.name, after, without, sizes)
  const { name, ...how } = variant
  const { ddl: _, ...told } = how // the name says it
  return { name, ...told, sizes, afterCheckpoint: withoutSmall(after), withoutCheckpoint: without }
}

/** Of the relations those alone whose pages are a part of the log that counts, by their bytes. */
function withoutSmall(counts: Partial<Record<OperationName, Counts & { relations: RelationCounts[] }>>) {
  return Object.fromEntries(
    Object.entries(counts).map(([name, { relations, ...rest }]) => {
      const large = relations.filter(({ imageBytes }) => imageBytes >= 300)
      return [name, { ...rest, imageBytes: Object.fromEntries(large.map((each) => [each.relation, each.imageBytes])) }]
    })
  )
}

interface Operation {
  readonly text: string
  values(pool: pg.Pool): Promise<unknown[]>
}

/** Each of a session of its own, somewhere in the tables. */
function operationOf(
  name: OperationName,
  n: number,
  payloads: readonly Buffer[],
  { isBeside = false }: Variant
): Operation {
  const session = (n * 7_919) % sessions // a prime: all of them, in no order
  const account = accountOf(session)
  const app = apps[n % apps.length]
  const payload = payloads[(n + 1) % payloads.length]
  switch (name) {
    case 'sign-out of three apps':
      return {
        text: 'select * from msal_logout.sign_out($1::msal_logout.signal_order[], true)',
        values: async () => {
          const selector = { kind: 'session', issuer, sid: sidOf(session), subject: `sub${session}${app}` } as const
          return [batchOf([makeOrder(selector, { rememberSeconds: 1_200, recordUnmatched: false })])]
        }
      }
    case 'login':
      return {
        text: `select * from msal_logout.login($1, $2, $2, $3, $4, $5, $6::bigint, $7::bytea, 'gzip', '30 days', 'user', $8, $9)`,
        values: async () => {
          const newcomer = accountOf(sessions + n)
          return [
            app,
            newcomer,
            issuer,
            sidOf(sessions + n),
            `sub${sessions + n}`,
            nowSeconds(),
            payload,
            newcomer.slice(0, 36),
            tenant
          ]
        }
      }
    case 'save':
    case 'save and renewal': // a session is renewed when a tenth of its time is over
      return {
        text: isBeside
          ? `update msal_logout.payloads set version = version + 1, payload = $5::bytea, expires_at = now() + interval '30 days'
            where client_id = $1 and partition_key = $2 and generation = $3::bigint and version = $4::bigint`
          : `select * from msal_logout.save($1, $2, $3::bigint, $4::bigint, $5::bytea, 'gzip', '${name === 'save' ? 30 : 60} days')`,
        values: async (pool) => {
          const { rows } = await pool.query<{ generation: string; version: string }>(
            'select generation, version from msal_logout.token_cache where partition_key = $1 and client_id = $2',
            [account, app]
          )
          return [app, account, rows[0]?.generation, rows[0]?.version, payload]
        }
      }
    case 'load':
      return {
        text: isBeside
          ? 'select version, payload from msal_logout.payloads where client_id = $1 and partition_key = $2 and expires_at > now()'
          : 'select msal_logout.load_text($1, $2)',
        values: async () => [app, account]
      }
  }
}

async function count(
  pool: pg.Pool,
  operations: readonly Operation[]
): Promise<Counts & { relations: RelationCounts[] }> {
  const sum = { buffers: 0, walRecords: 0, fullPageImages: 0 }
  const from = await walPosition(pool)
  for (const operation of operations) {
    const values = await operation.values(pool)
    const { rows } = await pool.query<{ 'QUERY PLAN': [{ Plan: Record<string, number> }] }>(
      `explain (analyze, buffers, wal, timing off, format json) ${operation.text}`,
      values
    )
    const plan = rows[0]?.['QUERY PLAN'][0].Plan ?? {}
    sum.buffers += (plan['Shared Hit Blocks'] ?? 0) + (plan['Shared Read Blocks'] ?? 0)
    sum.walRecords += plan['WAL Records'] ?? 0
    sum.fullPageImages += plan['WAL FPI'] ?? 0
  }
  const to = await walPosition(pool)
  const each = (value: number) => value / operations.length
  const relations = (await canInspect(pool)) ? await relationsOf(pool, from, to) : []
  const { rows: bytes } = await pool.query<{ n: number }>('select pg_wal_lsn_diff($1, $2)::int as n', [to, from])
  return {
    buffers: each(sum.buffers),
    walRecords: each(sum.walRecords),
    fullPageImages: each(sum.fullPageImages),
    walBytes: each(bytes[0]?.n ?? Number.NaN), // of its commit, too, and of what others of the server wrote
    relations: relations.map(({ relation, records, images, imageBytes, otherBytes }) => ({
      relation,
      records: each(records),
      images: each(images),
      imageBytes: each(imageBytes),
      otherBytes: each(otherBytes)
    }))
  }
}

/** From PostgreSQL 16 on. */
async function canInspect(pool: pg.Pool): Promise<boolean> {
  const { rows } = await pool.query<{ can: boolean }>(
    `select exists (select from pg_available_extension_versions where name = 'pg_walinspect' and version = '1.1') as can`
  )
  return rows[0]?.can === true
}

async function relationsOf(pool: pg.Pool, from: string, to: string): Promise<RelationCounts[]> {
  await pool.query(`create extension if not exists pg_walinspect`)
  await pool.query(`select pg_logical_emit_message(true, 'bench', 'flush')`) // what is looked at must be on disk, and be something
  const { rows } = await pool.query<RelationCounts>(
    `select coalesce(c.relname, 'others') as relation, count(*)::int as records,
      count(*) filter (where b.block_fpi_length > 0)::int as images, sum(b.block_fpi_length)::int as "imageBytes",
      sum(b.block_data_length)::int as "otherBytes"
    from pg_get_wal_block_info($1, $2) b
    left join pg_class c on c.oid = pg_filenode_relation(b.reltablespace, b.relfilenode)
    group by 1 order by 4 desc, 5 desc`,
    [from, to]
  )
  return rows
}

/** Settings that were given before fall back to their defaults. */
async function configure(pool: pg.Pool, settings: Readonly<Record<string, string>>): Promise<void> {
  await pool.query('alter system reset all')
  await pool.query('alter system set autovacuum = off') // its pages are not the operations'
  for (const [name, value] of Object.entries(settings)) {
    await pool.query(`alter system set ${name} = '${value}'`)
  }
  await pool.query('select pg_reload_conf()')
  for (const [name, value] of Object.entries(settings)) {
    await until(`"${name}" is "${value}"`, async () => {
      const { rows } = await pool.query<{ value: string }>('select current_setting($1) as value', [name])
      return rows[0]?.value === value
    })
  }
  await pool.query('checkpoint') // the checkpointer has read them by then
}

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (const since = performance.now(); !(await isSo()); ) {
    if (performance.now() - since > 10_000) {
      throw new Error(`not so within 10 s: ${what}`)
    }
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

function samplePayloads(form: 'plain' | 'gzip'): Buffer[] {
  return Array.from({ length: samples }, () => {
    const payload = Buffer.from(JSON.stringify(msalCache()))
    return form === 'gzip' ? gzipSync(payload) : payload
  })
}

/** What MSAL keeps of one user with tokens for one resource, as Entra ID issues them: names that repeat, and secrets that do not. */
function msalCache() {
  const [oid, clientId] = [randomUUID(), randomUUID()]
  const random = (bytes: number) => randomBytes(bytes).toString('base64url')
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const username = `${random(6)}@contoso.com`
  const jwt = (claims: object) =>
    [encode({ typ: 'JWT', alg: 'RS256', x5t: random(20), kid: random(20) }), encode(claims), random(256)].join('.')
  const times = { iat: 1_795_622_000, nbf: 1_795_622_000, exp: 1_795_626_000 }
  const user = {
    oid,
    tid: tenant,
    sub: random(32),
    sid: randomUUID(),
    name: 'Some Body',
    rh: random(40),
    uti: random(16)
  }
  const target = 'Calendars.Read email Mail.Read openid profile User.Read User.ReadBasic.All'
  const accessToken = jwt({
    aud: '00000003-0000-0000-c000-000000000000',
    iss: `https://sts.windows.net/${tenant}/`,
    ...times,
    ...user,
    ...{ acr: '1', acrs: ['p1'], aio: random(90), amr: ['pwd', 'mfa'], app_displayname: 'Portal', appid: clientId },
    ...{ family_name: 'Body', given_name: 'Some', idtyp: 'user', ipaddr: '203.0.113.7', platf: '3', puid: random(12) },
    ...{
      scp: target,
      signin_state: ['kmsi'],
      tenant_region_scope: 'EU',
      unique_name: username,
      upn: username,
      ver: '1.0'
    },
    ...{ wids: [randomUUID(), randomUUID()], xms_ftd: random(40), xms_idrel: '1 18', xms_st: { sub: random(32) } }
  })
  const issuerOfTokens = `https://login.microsoftonline.com/${tenant}/v2.0`
  const idToken = jwt({
    aud: clientId,
    iss: issuerOfTokens,
    ...times,
    ...user,
    nonce: randomUUID(),
    preferred_username: username
  })
  const homeAccountId = `${oid}.${tenant}`
  const environment = 'login.microsoftonline.com'
  const entity = (type: string, rest: object) => ({
    [`${homeAccountId}-${environment}-${type.toLowerCase()}-${clientId}-${tenant}-${type === 'AccessToken' ? target : ''}--`]:
      {
        home_account_id: homeAccountId,
        environment,
        credential_type: type,
        client_id: clientId,
        realm: tenant,
        ...rest
      }
  })
  const home = { home_account_id: homeAccountId, environment, realm: tenant, local_account_id: oid, username }
  const client_info = encode({ uid: oid, utid: tenant })
  const expiries = { cached_at: '1795622000', expires_on: '1795626000', extended_expires_on: '1795629000' }
  return {
    Account: {
      [`${homeAccountId}-${environment}-${tenant}`]: {
        ...home,
        ...{ authority_type: 'MSSTS', name: 'Some Body', client_info },
        tenantProfiles: [JSON.stringify({ tenantId: tenant, localAccountId: oid, username, isHomeTenant: true })]
      }
    },
    IdToken: entity('IdToken', { secret: idToken }),
    AccessToken: entity('AccessToken', { secret: accessToken, target, token_type: 'Bearer', ...expiries }),
    RefreshToken: entity('RefreshToken', { secret: `1.${random(1_050)}` }),
    AppMetadata: {}
  }
}

/** Users of three apps, who came to each at another time, among what was there before. */
async function fill(pool: pg.Pool, payloads: readonly Buffer[], { isAdjacent = false }: Variant): Promise<void> {
  const order = isAdjacent ? 'g, app' : `app, md5('order' || g || app)`
  await pool.query(
    `insert into msal_logout.token_cache (
      client_id, partition_key, kind, account_issuer, home_account_id, generation, payload, encoding, expires_at)
    select app, md5('oid' || g)::uuid || '.${tenant}', 'user', $3, md5('oid' || g)::uuid || '.${tenant}',
      row_number() over (order by ${order}), ($4::bytea[])[1 + g % ${samples}], 'gzip', now() + interval '30 days' + interval '1 second' * g
    from generate_series(0, $1::int - 1) g cross join unnest($2::text[]) app
    order by ${order}`,
    [sessions, apps, group, payloads]
  )
  await pool.query(
    `insert into msal_logout.sessions (
      issuer, session_key, client_id, partition_key, sid, subject, account_issuer, home_account_id, oid, tid,
      issued_at, expires_at)
    select $3, 'sid=' || md5('sid' || g)::uuid, app, md5('oid' || g)::uuid || '.${tenant}', md5('sid' || g)::uuid, 'sub' || g || app, $4,
      md5('oid' || g)::uuid || '.${tenant}', md5('oid' || g)::uuid, '${tenant}', extract(epoch from now())::bigint - 60,
      now() + interval '32 days' + interval '1 second' * g
    from generate_series(0, $1::int - 1) g cross join unnest($2::text[]) app
    order by ${order}`,
    [sessions, apps, issuer, group]
  )
  await pool.query(
    `insert into msal_logout.tombstones (issuer, key, revoke_before, expires_at)
    select $2, kind || gen_random_uuid(), 1, now() + interval '1 hour'
    from generate_series(1, $1::int) g cross join unnest(array['sid=', 'sub=', 'account=']) kind`,
    [oldTombstones, issuer]
  )
  await pool.query(
    `insert into msal_logout.records (id, source, issuer, sid, account_ids, account_issuers)
    select gen_random_uuid(), 'backchannel', $2, gen_random_uuid(), array[gen_random_uuid() || '.tenant'], array[$3]
    from generate_series(1, $1::int) g`,
    [oldRecords, issuer, group]
  )
  await pool.query('vacuum (freeze, analyze)') // all of it: the functions were created just now
}

/** Bytes of each table and each index of the cache. */
async function sizesOf(pool: pg.Pool): Promise<Record<string, number>> {
  const { rows } = await pool.query<{ name: string; bytes: number }>(
    `select coalesce(t.relname || ' toast', c.relname) as name, pg_relation_size(c.oid)::int as bytes
    from pg_class c
    left join pg_class t on t.reltoastrelid = c.oid
    where (c.relnamespace = 'msal_logout'::regnamespace or t.relnamespace = 'msal_logout'::regnamespace)
      and c.relkind in ('r', 'i', 't') and pg_relation_size(c.oid) > 65536
    order by 1`
  )
  return Object.fromEntries(rows.map(({ name, bytes }) => [name, bytes]))
}

function accountOf(session: number): string {
  const hash = createHash('md5').update(`oid${session}`).digest('hex')
  return `${hash.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')}.${tenant}`
}

async function walPosition(pool: pg.Pool): Promise<string> {
  const { rows } = await pool.query<{ lsn: string }>('select pg_current_wal_insert_lsn() as lsn')
  return rows[0]?.lsn ?? ''
}

function say(
  variant: string,
  after: Partial<Record<OperationName, Counts & { relations: RelationCounts[] }>>,
  without: Partial<Record<OperationName, Counts>>,
  sizes: Record<string, number>
): void {
  console.log(`\n${variant}: token_cache ${mib(sizes.token_cache)}, beside it ${mib(sizes['token_cache toast'])}`)
  for (const name of operationNames) {
    const [cold, warm] = [after[name], without[name]]
    console.log(
      `  ${name.padEnd(22)} buffers ${fixed(warm?.buffers)}  log ${kib(warm?.walBytes)}; after a checkpoint ${kib(cold?.walBytes)}, ${fixed(cold?.fullPageImages)} images`
    )
    for (const { relation, images, imageBytes, records } of cold?.relations ?? []) {
      if (images >= 0.05) {
        console.log(
          `    ${relation.padEnd(28)} records ${fixed(records)}  images ${images.toFixed(2)}  ${kib(imageBytes)}`
        )
      }
    }
  }
}

function fixed(value = 0): string {
  return value.toFixed(1).padStart(6)
}

function kib(bytes = 0): string {
  return `${(bytes / 1_024).toFixed(1).padStart(5)} KiB`
}

function mib(bytes = 0): string {
  return `${(bytes / 2 ** 20).toFixed(0)} MiB`
}
