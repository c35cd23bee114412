// The vectors with the Node client, which has made them; each other language's own tests run them, too.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { type Contents, mergeContents, ownContents, sessionsOf } from '../node/src/contents.ts'
import { createCodec, type Place } from '../node/src/encoding.ts'

interface Named {
  readonly name: string
}

function read<Vector extends Named>(file: string): readonly Vector[] {
  const { vectors }: { vectors: readonly Vector[] } = JSON.parse(
    readFileSync(new URL(`vectors/${file}.json`, import.meta.url), 'utf8')
  )
  return vectors
}

interface EncryptionVector extends Named {
  readonly keys: Readonly<Record<string, string>>
  readonly current: string | null
  readonly place: Place
  readonly encoding: string
  readonly payload: string
  readonly allowPlain?: boolean
  readonly text: string | null
  readonly warns: 'plain' | 'undecodable' | null
}

t.test('encryption', async (t) => {
  for (const { name, keys, current, place, encoding, payload, allowPlain, text, warns } of read<EncryptionVector>(
    'encryption'
  )) {
    const encryption = current !== null && {
      current,
      keys: Object.fromEntries(Object.entries(keys).map(([id, key]) => [id, Buffer.from(key, 'hex')])),
      ...(allowPlain !== undefined && { allowPlain })
    }
    const decoded = await createCodec(encryption || undefined).decode(
      { payload: Buffer.from(payload, 'base64'), encoding },
      place
    )
    const isRead = decoded.kind === 'text' || decoded.kind === 'plain'
    t.equal((isRead ? decoded.text : decoded.kind === 'pending' ? '{}' : null) ?? null, text, name)
    t.equal(decoded.kind === 'plain' || decoded.kind === 'undecodable' ? decoded.kind : null, warns, name)
  }
})

interface MergeVector extends Named {
  readonly base: Contents
  readonly ours: Contents
  readonly theirs: Contents
  readonly merged: Contents
}

t.test('merge', async (t) => {
  for (const { name, base, ours, theirs, merged } of read<MergeVector>('merge')) {
    t.strictSame(mergeContents(base, ours, theirs), merged, name)
  }
})

interface OwnVector extends Named {
  readonly homeAccountId: string
  readonly nowSeconds: number
  readonly contents: Contents
  readonly own: Contents
}

t.test('own contents', async (t) => {
  for (const { name, homeAccountId, nowSeconds, contents, own } of read<OwnVector>('own')) {
    t.strictSame(ownContents(contents, homeAccountId, nowSeconds), own, name)
  }
})

interface SessionVector extends Named {
  readonly clientId: string
  readonly contents: Contents
  readonly sessions: ReturnType<typeof sessionsOf>
}

t.test('sessions', async (t) => {
  for (const { name, clientId, contents, sessions } of read<SessionVector>('sessions')) {
    t.strictSame(sessionsOf(contents, clientId), sessions, name)
  }
})

t.test('partition keys', async (t) => {
  for (const { assertion, partitionKey } of read<Named & { assertion?: string; partitionKey: string }>('partitions')) {
    if (assertion !== undefined) {
      t.equal(createHash('sha256').update(assertion).digest('base64url'), partitionKey, assertion)
    }
  }
})
