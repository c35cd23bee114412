// Writes vectors/*.json with the Node client's own code: `npx tsx clients/conformance/generate-vectors.ts`. What a
// client must reject is made from what it must accept, by one change each. Encryption draws a nonce: each run writes
// other payloads, and all of them are right.
import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { type Contents, mergeContents, ownContents, sessionsOf } from '../node/src/contents.ts'
import { createCodec, type Place } from '../node/src/encoding.ts'

const folder = new URL('vectors/', import.meta.url)

function write(name: string, about: string, vectors: readonly object[]): void {
  writeFileSync(new URL(`${name}.json`, folder), `${JSON.stringify({ about, vectors }, null, 2)}\n`)
}

const jwt = (claims: object) =>
  [{ alg: 'none' }, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')
    .concat('.sig')

// Encryption

const keys = {
  k1: createHash('sha256').update('first key').digest(),
  k2: createHash('sha256').update('second key').digest()
}
const otherKey = createHash('sha256').update('a key that nobody has').digest()
const place: Place = { clientId: 'client-a', partitionKey: 'uid.utid', generation: '42' }
const text = JSON.stringify({
  Account: { 'uid.utid-login.example-t': { home_account_id: 'uid.utid', name: 'Jürgen' } }
})
const hex = (values: Record<string, Buffer>) =>
  Object.fromEntries(Object.entries(values).map(([id, key]) => [id, key.toString('hex')]))

async function encryptionVectors(): Promise<object[]> {
  const codec = createCodec({ current: 'k2', keys })
  const row = async (at: Place, contents = text, current = 'k2') => {
    const { payload, encoding } = await createCodec({ current, keys }).encode(contents, at)
    return { encoding, payload: payload.toString('base64') }
  }
  const vector = (name: string, given: object, expected: object) => ({
    name,
    keys: hex(keys),
    current: 'k2',
    place,
    ...given,
    ...expected
  })
  const right = await row(place)
  const flip = (bit: number) => {
    const payload = Buffer.from(right.payload, 'base64')
    payload[bit >> 3] = (payload[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    return { ...right, payload: payload.toString('base64') }
  }
  const cut = (bytes: number) => ({
    ...right,
    payload: Buffer.from(right.payload, 'base64').subarray(0, bytes).toString('base64')
  })
  const bits = Buffer.from(right.payload, 'base64').length * 8
  const odd: Place = {
    clientId: 'client "a"\\b',
    partitionKey: 'auth0|Jürgen\u2028\t\u0001\u007f\u{1f511}',
    generation: '9223372036854775807'
  }
  const app: Place = { ...place, partitionKey: 'client-a.tenant', generation: 'app' }
  const undecodable = { text: null, warns: 'undecodable' }
  const plain = Buffer.from(text).toString('base64')
  const vectors = [
    vector('right', right, { text, warns: null }),
    vector('an older key that is still among the keys', await row(place, text, 'k1'), { text, warns: null }),
    vector('an empty cache', await row(place, '{}'), { text: '{}', warns: null }),
    vector('names that JSON escapes', { ...(await row(odd)), place: odd }, { text, warns: null }),
    vector('an app row binds the word "app"', { ...(await row(app)), place: app }, { text, warns: null }),
    vector('a wrong key', { ...right, keys: hex({ ...keys, k2: otherKey }) }, undecodable),
    vector('an unknown key id', { ...right, encoding: 'gzip+a256gcm:k3' }, undecodable),
    vector('another known key id', { ...right, encoding: 'gzip+a256gcm:k1' }, undecodable),
    vector('a key id that objects are born with', { ...right, encoding: 'gzip+a256gcm:constructor' }, undecodable),
    vector('an unknown encoding', { ...right, encoding: 'br+a256gcm:k2' }, undecodable),
    vector('a flipped bit of the nonce', flip(5), undecodable),
    vector('a flipped bit of the tag', flip(12 * 8 + 3), undecodable),
    vector('a flipped bit of the text', flip(bits - 1), undecodable),
    vector('moved from another client id', { ...right, place: { ...place, clientId: 'client-b' } }, undecodable),
    vector('moved from another partition', { ...right, place: { ...place, partitionKey: 'other.utid' } }, undecodable),
    vector('moved from another generation', { ...right, place: { ...place, generation: '43' } }, undecodable),
    vector('too short: no byte', cut(0), undecodable),
    vector('too short: a nonce and half a tag', cut(20), undecodable),
    vector('too short: a nonce and a tag', cut(28), undecodable),
    vector('cut at its end', cut(bits / 8 - 1), undecodable),
    vector('plain under encryption', { encoding: 'json', payload: plain, allowPlain: true }, { text, warns: 'plain' }),
    vector(
      'plain under encryption, where none is allowed',
      { encoding: 'json', payload: plain, allowPlain: false },
      {
        text: null,
        warns: 'plain'
      }
    ),
    vector(
      'plain without encryption',
      { encoding: 'json', payload: plain, keys: {}, current: null },
      { text, warns: null }
    ),
    vector('encrypted, and the client has no keys', { ...right, keys: {}, current: null }, undecodable),
    vector('a login whose payload is on its way', { encoding: 'none', payload: '' }, { text: '{}', warns: null })
  ]
  // The Node client reads what it wrote.
  const decoded = await codec.decode({ payload: Buffer.from(right.payload, 'base64'), encoding: right.encoding }, place)
  if (decoded.kind !== 'text' || decoded.text !== text) {
    throw new Error('the right vector does not decode')
  }
  return vectors
}

// Merging

const entity = (secret: string) => ({ home_account_id: 'uid.utid', secret })
const cache = (sections: Record<string, Record<string, unknown>>, others: Record<string, unknown> = {}): Contents => ({
  Account: { a: { home_account_id: 'uid.utid', username: 'ann' } },
  IdToken: {},
  AccessToken: {},
  RefreshToken: {},
  AppMetadata: {},
  ...sections,
  ...others
})

function mergeVectors(): object[] {
  const base = cache({ AccessToken: { x: entity('x1'), y: entity('y1') }, RefreshToken: { r: entity('r1') } })
  const cases: Record<string, { base: Contents; ours: Contents; theirs: Contents }> = {
    'nobody changed anything': { base, ours: base, theirs: base },
    'we added': {
      base,
      ours: cache({
        AccessToken: { x: entity('x1'), y: entity('y1'), z: entity('z1') },
        RefreshToken: { r: entity('r1') }
      }),
      theirs: base
    },
    'they added': {
      base,
      ours: base,
      theirs: cache({
        AccessToken: { x: entity('x1'), y: entity('y1'), z: entity('z1') },
        RefreshToken: { r: entity('r1') }
      })
    },
    'each added another': {
      base,
      ours: cache({
        AccessToken: { x: entity('x1'), y: entity('y1'), ours: entity('o') },
        RefreshToken: { r: entity('r1') }
      }),
      theirs: cache({
        AccessToken: { x: entity('x1'), y: entity('y1'), theirs: entity('t') },
        RefreshToken: { r: entity('r1') }
      })
    },
    'both changed the same: ours stays': {
      base,
      ours: cache({ AccessToken: { x: entity('x-ours'), y: entity('y1') }, RefreshToken: { r: entity('r-ours') } }),
      theirs: cache({
        AccessToken: { x: entity('x-theirs'), y: entity('y1') },
        RefreshToken: { r: entity('r-theirs') }
      })
    },
    'they changed what we left alone': {
      base,
      ours: cache({ AccessToken: { x: entity('x2'), y: entity('y1') }, RefreshToken: { r: entity('r1') } }),
      theirs: cache({ AccessToken: { x: entity('x1'), y: entity('y2') }, RefreshToken: { r: entity('r2') } })
    },
    'we removed': {
      base,
      ours: cache({ AccessToken: { x: entity('x1') }, RefreshToken: { r: entity('r1') } }),
      theirs: base
    },
    'they removed': {
      base,
      ours: base,
      theirs: cache({ AccessToken: { x: entity('x1') }, RefreshToken: { r: entity('r1') } })
    },
    'we removed what they changed: it goes': {
      base,
      ours: cache({ AccessToken: { x: entity('x1') }, RefreshToken: { r: entity('r1') } }),
      theirs: cache({ AccessToken: { x: entity('x1'), y: entity('y2') }, RefreshToken: { r: entity('r1') } })
    },
    'they removed what we changed: it stays': {
      base,
      ours: cache({ AccessToken: { x: entity('x1'), y: entity('y2') }, RefreshToken: { r: entity('r1') } }),
      theirs: cache({ AccessToken: { x: entity('x1') }, RefreshToken: { r: entity('r1') } })
    },
    'the stored row could not be decoded': { base, ours: cache({ AccessToken: { x: entity('x2') } }), theirs: {} },
    'what was loaded could not be decoded': {
      base: {},
      ours: cache({ AccessToken: { x: entity('x2') } }),
      theirs: base
    },
    'members that MSAL does not know are theirs': {
      base,
      ours: cache({}, { ours: 1 }),
      theirs: cache({}, { theirs: { deep: [1] } })
    },
    'sections that are no objects count as empty': {
      base: { AccessToken: [] },
      ours: { AccessToken: { x: entity('x') } },
      theirs: { AccessToken: 'none', Account: null }
    },
    'entities that are no objects count as absent': {
      base: {},
      ours: { AccessToken: { x: 'text', y: entity('y') } },
      theirs: { AccessToken: { z: 7 } }
    }
  }
  return Object.entries(cases).map(([name, given]) => ({
    name,
    ...given,
    merged: mergeContents(given.base, given.ours, given.theirs)
  }))
}

// What may be written to the row of an account

function ownVectors(): object[] {
  const now = 1_795_000_000
  const token = (home: string, expires: unknown) => ({ home_account_id: home, secret: 's', expires_on: expires })
  const cases: Record<string, Contents> = {
    'all of it': cache({ AccessToken: { x: token('uid.utid', String(now + 1)) } }),
    "another account's entities": cache({
      Account: { a: { home_account_id: 'uid.utid' }, b: { home_account_id: 'bob.utid' } },
      RefreshToken: { r: entity('r'), s: { home_account_id: 'bob.utid', secret: 's' } }
    }),
    'ids are compared byte by byte': cache({ RefreshToken: { r: { home_account_id: 'UID.utid', secret: 's' } } }),
    'expired access tokens': cache({
      AccessToken: {
        gone: token('uid.utid', String(now)),
        long: token('uid.utid', '1'),
        fresh: token('uid.utid', String(now + 1)),
        number: token('uid.utid', now - 1),
        unknown: { home_account_id: 'uid.utid', secret: 's' },
        odd: token('uid.utid', 'never')
      }
    }),
    'what describes the app stays': cache({
      AppMetadata: { m: { client_id: 'client-a', environment: 'login.example' } }
    }),
    'sections that are missing or no objects': {
      Account: { a: { home_account_id: 'uid.utid' } },
      IdToken: 'x',
      more: { kept: true }
    },
    'entities that are no objects': cache({ AccessToken: { x: 'text', y: null } })
  }
  return Object.entries(cases).map(([name, contents]) => ({
    name,
    homeAccountId: 'uid.utid',
    nowSeconds: now,
    contents,
    own: ownContents(contents, 'uid.utid', now)
  }))
}

// Claims to sessions

function sessionVectors(): object[] {
  const claims = { iss: 'https://login.example/t', sub: 'the-subject', aud: 'client-a', iat: 1_795_000_000 }
  const cases: Record<string, readonly object[]> = {
    'with a sid': [{ ...claims, sid: 'the-sid' }],
    'without a sid': [claims],
    'an empty sid is none': [{ ...claims, sid: '' }],
    'a sid that is no text is none': [{ ...claims, sid: 7 }],
    'a fraction of a second is cut': [{ ...claims, sid: 's', iat: 1_795_000_000.9 }],
    'several audiences': [{ ...claims, sid: 's', aud: ['x', 'client-a'] }],
    'for another client': [{ ...claims, sid: 's', aud: 'client-b' }],
    'for no client': [{ iss: claims.iss, sub: claims.sub, iat: claims.iat, sid: 's' }],
    'no issue time': [{ iss: claims.iss, sub: claims.sub, aud: claims.aud, sid: 's' }],
    'an issue time before 1970': [{ ...claims, iat: -1.5 }],
    'an issue time in microseconds': [{ ...claims, iat: 1_795_000_000_000_000 }],
    'an issue time in nanoseconds': [{ ...claims, iat: 1_795_000_000_000_000_000 }],
    'an issue time that no database takes': [{ ...claims, iat: 1e300 }],
    'an issue time as text': [{ ...claims, iat: '1795000000' }],
    'no subject': [{ iss: claims.iss, aud: claims.aud, iat: claims.iat }],
    'no issuer': [{ sub: claims.sub, aud: claims.aud, iat: claims.iat }],
    'the object of a directory': [{ ...claims, sid: 's', oid: '0b1e', tid: '7e0a' }],
    'an empty oid is none': [{ ...claims, sid: 's', oid: '', tid: 3 }],
    'two tenants of a guest': [
      { ...claims, sid: 's1', tid: 't1', oid: 'o1' },
      { ...claims, iss: 'https://login.example/t2', sid: 's2', tid: 't2', oid: 'o2' }
    ],
    'letters beyond ASCII': [{ ...claims, sub: 'Jürgen \u{1f511}', sid: 's' }]
  }
  const vectors = Object.entries(cases).map(([name, tokens]) => {
    const contents: Contents = {
      IdToken: Object.fromEntries(
        tokens.map((token, i) => [
          `id-${i}`,
          { home_account_id: 'uid.utid', client_id: 'client-a', secret: jwt(token) }
        ])
      )
    }
    return { name, clientId: 'client-a', contents, sessions: sessionsOf(contents, 'client-a') }
  })
  const broken = {
    'no JWT': 'no-jwt',
    'a payload that is no JSON': 'a.%%%.c',
    'a payload that is no object': `a.${Buffer.from('[1]').toString('base64url')}.c`,
    'no text': 7
  }
  for (const [name, secret] of Object.entries(broken)) {
    const contents: Contents = { IdToken: { id: { home_account_id: 'uid.utid', secret } } }
    vectors.push({ name, clientId: 'client-a', contents, sessions: sessionsOf(contents, 'client-a') })
  }
  return vectors
}

// Partition keys

function partitionVectors(): object[] {
  const hash = (assertion: string) => createHash('sha256').update(assertion).digest('base64url')
  return [
    { name: "a user's row", kind: 'user', homeAccountId: 'uid.utid', partitionKey: 'uid.utid' },
    { name: 'a bare subject, byte for byte', kind: 'user', homeAccountId: 'auth0|AbC', partitionKey: 'auth0|AbC' },
    ...['a.b.c', jwt({ sub: 'ann' }), 'Jürgen'].map((assertion) => ({
      name: `on behalf of ${JSON.stringify(assertion.slice(0, 8))}`,
      kind: 'obo',
      assertion,
      partitionKey: hash(assertion)
    })),
    { name: 'an app, as it is given', kind: 'app', given: 'client-a.tenant', partitionKey: 'client-a.tenant' }
  ]
}

write(
  'encryption',
  'keys: hex; payload: base64; text: what decoding gives, null: the row counts as empty; warns: undecodable, plain or null',
  await encryptionVectors()
)
write(
  'merge',
  'base: as loaded; ours: as MSAL left it; theirs: what is stored now; merged: what is saved',
  mergeVectors()
)
write('own', "contents: a cache; own: what may be written to the account's row at that time", ownVectors())
write(
  'sessions',
  'contents: a cache; sessions: the sessions that its ID tokens name, in the order of the tokens',
  sessionVectors()
)
write('partitions', 'the partition key of each kind of row', partitionVectors())
