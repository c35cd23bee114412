import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync
} from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { createDurableFiles, type DurableFilesOptions } from '../src/durable-files.ts'
import { hangFiles } from './fixtures/hang.ts'
import { until } from './fixtures/until.ts'

const isRoot = process.geteuid?.() === 0
const ownUid = process.geteuid?.() ?? 0
const foreignId = 12_345

/** A folder that is trusted, and goes away with the test. */
function home(t: Test, parent = tmpdir()): string {
  const dir = realpathSync(mkdtempSync(join(parent, 'msal-logout-files-')))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** With time to write, since a busy disk is slow, and most tests are not about that. */
function openFiles(dir: string, options: Partial<DurableFilesOptions> = {}) {
  const files = createDurableFiles({ dir, checkWithinMs: 30_000, ...options })
  return {
    ...files,
    write: (name: string, content = 'content', more: { withinMs?: number; isPreferred?: boolean } = {}) =>
      files.write(name, content, { withinMs: 30_000, ...more })
  }
}

/** Has each sync of a file or folder wait for what is given. */
async function interceptSyncs(t: Test, before: (isFolder: boolean, size: number) => Promise<void>): Promise<void> {
  const probe = await open(tmpdir())
  const prototype = Object.getPrototypeOf(probe) as FileHandle
  await probe.close()
  const { sync } = prototype
  prototype.sync = async function (this: FileHandle) {
    const stats = await this.stat()
    await before(stats.isDirectory(), stats.size)
    return sync.call(this)
  }
  t.teardown(() => {
    prototype.sync = sync
  })
}

t.test('a write resolves when the file is on disk, and then its name', async (t) => {
  const dir = join(home(t), 'spool')
  const events: string[] = []
  const files = openFiles(dir)
  await files.check()
  await interceptSyncs(t, async (isFolder) => {
    events.push(`${isFolder ? 'folder' : 'file'}, the name is ${existsSync(join(dir, 'a')) ? 'there' : 'not there'}`)
  })
  t.equal(await files.write('a', 'x'), 'written')
  events.push('resolved')
  t.same(events, ['file, the name is not there', 'folder, the name is there', 'resolved'])
  t.equal(readFileSync(join(dir, 'a'), 'utf8'), 'x')
  t.equal(await files.write('a', 'y'), 'exists')
  t.same(events.slice(3), ['folder, the name is there'], 'also a name that another process may not have synced')
})

t.test('a folder that is made is on disk, and so is each one above it that was made', async (t) => {
  const dir = join(home(t), 'a', 'b', 'spool')
  let folders = 0
  await interceptSyncs(t, async (isFolder) => {
    folders += isFolder ? 1 : 0
  })
  await openFiles(dir).write('a')
  t.equal(folders, 4, 'three that have a new entry, and the one with the file')
})

t.test('the same name is one file, and the content that was first stays', async (t) => {
  const dir = join(home(t), 'spool')
  const files = openFiles(dir)
  const all = await Promise.all(Array.from({ length: 100 }, (_, i) => files.write('a', `${i}`)))
  t.same(
    all.filter((written) => written === 'written'),
    ['written']
  )
  t.equal(await openFiles(dir).write('a', 'later'), 'exists')
  const others = await Promise.all([openFiles(dir), openFiles(dir)].map((other) => other.write('b')))
  t.ok(others.includes('written'), 'and two processes at once do each other no harm')
  t.same(await files.names(), ['a', 'b'])
  t.same(await files.read('a'), { state: 'read', content: '0' })
})

t.test('the same name waits as long as the last one who wants it', async (t) => {
  const dir = join(home(t), 'spool')
  const files = openFiles(dir)
  await files.check()
  let release = () => {}
  const gate = new Promise<void>((resolve) => {
    release = resolve
  })
  await interceptSyncs(t, () => gate)
  const held = ['a', 'b'].map((name) => files.write(name))
  const hasty = t.rejects(files.write('c', 'x', { withinMs: 50 }), { code: 'ERR_SPOOL_SLOW' })
  const patient = files.write('c')
  await hasty
  release()
  t.same(await Promise.all([...held, patient]), ['written', 'written', 'exists'])
  t.same(await files.names(), ['a', 'b', 'c'])
})

t.test('nobody else can read it, and reading makes nothing', async (t) => {
  const dir = join(home(t), 'a', 'spool')
  const files = openFiles(dir, { folders: { rejected: 10 } })
  t.same(await files.names(), [])
  t.same(await files.names({ folder: 'rejected' }), [])
  t.same(await files.read('x'), { state: 'gone' })
  t.notOk(existsSync(dir))
  await files.write('x')
  await files.move('x', 'rejected', 'y')
  const modes = [dir, join(dir, '..'), join(dir, 'rejected'), join(dir, 'rejected', 'y')].map(
    (path) => statSync(path).mode & 0o777
  )
  t.same(modes, [0o700, 0o700, 0o700, 0o600])
})

t.test('names are sorted, and what has no name of ours is left alone', async (t) => {
  const dir = join(home(t), 'spool')
  const files = openFiles(dir, { folders: { rejected: 10 } })
  for (const name of ['b', 'a.1-2_3.json', 'C']) {
    await files.write(name)
  }
  mkdirSync(join(dir, 'lost+found'))
  mkdirSync(join(dir, 'rejected'))
  for (const name of ['.hidden', 'two words', '\u00fc', `${'x'.repeat(201)}`]) {
    writeFileSync(join(dir, name), '')
  }
  writeFileSync(Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0x61, 0xff, 0xfe])]), '') // no UTF-8
  t.same(await files.names(), ['C', 'a.1-2_3.json', 'b'])
  t.equal(readdirSync(dir).length, 10)
})

t.test('a name or a size that is not acceptable is a mistake of the caller', async (t) => {
  const dir = join(home(t), 'spool')
  const files = openFiles(dir, { maxFileBytes: 10, folders: { rejected: 10 } })
  for (const name of ['', '.', '..', '.a', 'a/b', '../a', 'a\0', 'a b', '\u00fc', 'x'.repeat(201)]) {
    await t.rejects(files.write(name), RangeError, name)
    await t.rejects(files.read(name), RangeError, name)
    await t.rejects(files.remove(name), RangeError, name)
    await t.rejects(files.move(name, 'rejected', 'a'), RangeError, name)
    await t.rejects(files.move('a', 'rejected', name), RangeError, name)
  }
  for (const folder of ['', '.', 'elsewhere', 'constructor']) {
    await t.rejects(files.move('a', folder, 'a'), RangeError, folder)
  }
  await t.rejects(files.names({ folder: 'elsewhere' }), RangeError)
  await t.rejects(files.write('a', 'x'.repeat(11)), RangeError)
  await t.resolves(files.write('a', 'x'.repeat(10)))
})

t.test('as many files as there are have the content that they were given', async (t) => {
  const name = fc.constantFrom('a', 'b', 'c')
  const step = fc.oneof(
    fc.record({ kind: fc.constant('write' as const), name, content: fc.string({ unit: 'grapheme', maxLength: 20 }) }),
    fc.record({ kind: fc.constantFrom('remove' as const, 'move' as const, 'reopen' as const), name })
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      const dir = join(home(t), 'spool')
      let files = openFiles(dir, { folders: { moved: 10 } })
      const expected = new Map<string, string>()
      const moved = new Map<string, string>()
      for (const step of steps) {
        const content = expected.get(step.name)
        if (step.kind === 'write') {
          // One without content is as good as none.
          const isThere = content !== undefined && content !== ''
          t.equal(await files.write(step.name, step.content), isThere ? 'exists' : 'written')
          expected.set(step.name, isThere ? content : step.content)
        } else if (step.kind === 'remove') {
          await files.remove(step.name)
          expected.delete(step.name)
        } else if (step.kind === 'move') {
          await files.move(step.name, 'moved', `${step.name}.m`)
          expected.delete(step.name)
          moved.set(`${step.name}.m`, content ?? moved.get(`${step.name}.m`) ?? '')
        } else {
          files = openFiles(dir, { folders: { moved: 10 } })
        }
      }
      t.same(await files.names(), [...expected.keys()].sort())
      for (const [name, content] of expected) {
        t.same(await files.read(name), { state: 'read', content })
      }
      for (const name of await files.names({ folder: 'moved' })) {
        t.equal(readFileSync(join(dir, 'moved', name), 'utf8'), moved.get(name))
      }
    }),
    { numRuns: 30 }
  )
})

t.test('a folder that others can change is not trusted, and the error says which and what to do', async (t) => {
  const byRoot = (path: string) => chownSync(path, foreignId, foreignId)
  const cases: Record<string, { spoil(root: string): string; message: RegExp; asUser?: boolean; onlyRoot?: boolean }> =
    {
      'the folder, by everybody': {
        spoil: (root) => mode(join(root, 'spool'), 0o777),
        message: /spool" can be written by every user \(mode 0777\).*chmod go-w/
      },
      'the folder, by everybody, though sticky': {
        spoil: (root) => mode(join(root, 'spool'), 0o1777),
        message: /spool" can be written by every user \(mode 1777\)/
      },
      'the folder, by everybody who cannot read it': {
        spoil: (root) => mode(join(root, 'spool'), 0o702),
        message: /spool" can be written by every user/
      },
      'one above it': {
        spoil: (root) => join(mode(join(root, 'open'), 0o777), 'spool'),
        message: /open" can be written by every user/
      },
      'one further above it': {
        spoil: (root) => join(mode(join(root, 'open'), 0o777), 'mine', 'spool'),
        message: /open" can be written by every user/
      },
      'one above it, by a group that is not ours': {
        spoil: (root) => join(mode(join(root, 'open'), 0o770), 'spool'),
        asUser: true,
        message: /open" can be written by group \d+ \(mode 0770\)/
      },
      'a symbolic link': {
        spoil: (root) => link(join(root, 'target'), join(root, 'spool')),
        message: /spool" is a symbolic link: name the folder itself, ".*target"/
      },
      'a symbolic link to nothing': {
        spoil: (root) => link('nowhere', join(root, 'spool')),
        message: /spool" is a symbolic link/
      },
      'behind a link above it': {
        spoil: (root) => {
          link(join(mode(join(root, 'open'), 0o777), 'mine'), join(root, 'link'))
          mkdirSync(join(root, 'open', 'mine'))
          return join(root, 'link', 'spool')
        },
        message: /open" can be written by every user/
      },
      'a link in a circle': {
        spoil: (root) => join(link('circle', join(root, 'circle')), 'spool'),
        message: /circle" is a symbolic link/
      },
      'of another user': {
        spoil: (root) => {
          byRoot(mode(join(root, 'spool'), 0o700))
          return join(root, 'spool')
        },
        onlyRoot: true,
        message: /spool" belongs to user 12345, and this is user 0: "chown 0 /
      },
      'below one of another user': {
        spoil: (root) => {
          byRoot(mode(join(root, 'theirs'), 0o755))
          return join(root, 'theirs', 'spool')
        },
        onlyRoot: true,
        message: /theirs" belongs to user 12345/
      }
    }
  function mode(path: string, bits: number): string {
    mkdirSync(path)
    chmodSync(path, bits)
    return path
  }
  function link(target: string, path: string): string {
    symlinkSync(target, path)
    return path
  }
  for (const [name, { spoil, message, asUser = false, onlyRoot = false }] of Object.entries(cases)) {
    if (onlyRoot && !isRoot) {
      continue // nobody else can give a folder away
    }
    const dir = spoil(home(t))
    const before = existsSync(dir) ? readdirSync(dir) : []
    const files = openFiles(dir, asUser ? { user: { uid: ownUid, groupIds: [foreignId] } } : {})
    if (asUser) {
      chownSync(join(dir, '..'), ownUid, isRoot ? foreignId + 1 : (process.getegid?.() ?? 0))
    }
    const expected = { name: 'FilesError', code: 'ERR_SPOOL_UNTRUSTED', message }
    await t.rejects(files.write('a'), expected, name)
    await t.rejects(files.check(), expected, name)
    await t.rejects(files.names(), expected, name)
    t.same(existsSync(dir) ? readdirSync(dir) : [], before, name)
  }
})

t.test('a folder that only this user, root and our own groups can change is trusted', async (t) => {
  const root = home(t)
  const gid = process.getegid?.() ?? 0
  const make = (path: string, bits: number) => {
    mkdirSync(path)
    chownSync(path, ownUid, gid)
    chmodSync(path, bits)
    return path
  }
  const folders = {
    'below a sticky one': join(make(join(root, 'sticky'), 0o1777), 'spool'),
    'that all can read': make(join(root, 'readable'), 0o755),
    'of our group, as a volume of Kubernetes': make(join(root, 'volume'), 0o2770),
    'below a link': join(root, 'link', 'spool'),
    'below a relative link with dots': join(root, 'dots', 'spool')
  }
  make(join(root, 'target'), 0o700)
  symlinkSync(join(root, 'target'), join(root, 'link'))
  symlinkSync('readable/.././/target/../readable/', join(root, 'dots'))
  for (const [name, dir] of Object.entries(folders)) {
    const files = openFiles(dir)
    await t.resolves(files.check(), name)
    t.equal(await files.write('a'), 'written', name)
    t.same(await files.read('a'), { state: 'read', content: 'content' }, name)
  }
  t.ok(existsSync(join(root, 'target', 'spool', 'a')))
  t.ok(existsSync(join(root, 'readable', 'spool', 'a')))
})

t.test('trust that is lost while the folder is in use is found, and trust that is mended too', async (t) => {
  const dir = join(home(t), 'spool')
  const files = openFiles(dir)
  await files.write('a')
  chmodSync(dir, 0o777)
  await t.rejects(files.names(), { code: 'ERR_SPOOL_UNTRUSTED' })
  await t.rejects(files.write('b'), { code: 'ERR_SPOOL_UNTRUSTED' })
  await t.rejects(files.check(), { code: 'ERR_SPOOL_UNTRUSTED' })
  chmodSync(dir, 0o700)
  await files.check()
  await files.write('b')
  chmodSync(dir, 0o777)
  await t.rejects(files.check(), { code: 'ERR_SPOOL_UNTRUSTED' })
  await t.rejects(files.write('c'), { code: 'ERR_SPOOL_UNTRUSTED' }, 'found by any call')
  chmodSync(dir, 0o700)
  t.equal(await files.write('c'), 'written')
  t.same(await files.names(), ['a', 'b', 'c'])
})

t.test(
  'what is no file of ours is never waited for, never believed, and holds up nothing',
  { timeout: 20_000 },
  async (t) => {
    const dir = join(home(t), 'spool')
    const files = openFiles(dir, { maxFileBytes: 100_000 })
    await files.write('good')
    const outside = join(dir, '..', 'outside')
    writeFileSync(outside, 'outside')
    const file = (path: string, bits: number) => {
      writeFileSync(path, 'x')
      chmodSync(path, bits)
    }
    const cases: Record<string, { make(path: string): unknown; reason: string; onlyRoot?: boolean }> = {
      pipe: { make: (path) => execFileSync('mkfifo', [path]), reason: 'not-a-file' },
      device: { make: (path) => symlinkSync('/dev/zero', path), reason: 'not-a-file' },
      terminal: { make: (path) => symlinkSync('/dev/tty', path), reason: 'not-a-file' },
      link: { make: (path) => symlinkSync(outside, path), reason: 'not-a-file' },
      'broken-link': { make: (path) => symlinkSync('nowhere', path), reason: 'not-a-file' },
      folder: { make: (path) => mkdirSync(path), reason: 'not-a-file' },
      socket: {
        make: async (path) => {
          const server = createServer().listen(path)
          await once(server, 'listening')
          t.teardown(() => server.close())
        },
        reason: 'not-a-file'
      },
      huge: {
        make: (path) => {
          writeFileSync(path, '')
          truncateSync(path, 2 ** 40) // takes no room
        },
        reason: 'too-large'
      },
      'one-byte-too-many': { make: (path) => writeFileSync(path, 'x'.repeat(100_001)), reason: 'too-large' },
      writable: { make: (path) => file(path, 0o666), reason: 'writable-by-others' },
      foreign: {
        make: (path) => {
          file(path, 0o644)
          chownSync(path, foreignId, foreignId)
        },
        reason: 'foreign-owner',
        onlyRoot: true
      }
    }
    const made = Object.entries(cases).filter(([, { onlyRoot = false }]) => isRoot || !onlyRoot)
    for (const [name, { make }] of made) {
      await make(join(dir, name))
    }
    const expected = made.map(([name, { reason }]) => ({ name, reason }))
    t.same(
      await files.names(),
      ['good', ...expected.map(({ name }) => name)].sort(),
      'they are seen, so that somebody looks after them'
    )
    for (const { name, reason } of expected) {
      t.same(await files.read(name), { state: 'stuck', reason }, name)
    }
    t.same(await files.read('good'), { state: 'read', content: 'content' })
    t.same(files.stuck(), expected)

    t.equal(await files.write('link', 'mine'), 'written', 'one that nobody could read is no file that exists')
    t.equal(await files.write('pipe', 'mine'), 'written')
    t.same(await files.read('link'), { state: 'read', content: 'mine' })
    t.equal(readFileSync(outside, 'utf8'), 'outside', 'and what a link points to stays as it was')
    await t.rejects(files.write('folder', 'mine'), { code: 'ERR_SPOOL_NOT_WRITABLE' }, 'a folder is in the way')
    t.ok(readdirSync(dir).every((name) => !name.endsWith('.part')))
    await files.remove('huge')
    rmSync(join(dir, 'device'))
    await files.names()
    const gone = ['pipe', 'link', 'huge', 'device']
    t.same(
      files.stuck(),
      expected.filter(({ name }) => name !== 'pipe' && !gone.includes(name)),
      'what was mended or removed is stuck no more'
    )
  }
)

t.test('a file that is cut short while it is read is tried again', async (t) => {
  const dir = join(home(t), 'spool')
  const files = openFiles(dir)
  await files.write('a', 'x'.repeat(1_000))
  const probe = await open(join(dir, 'a'))
  const prototype = Object.getPrototypeOf(probe) as FileHandle
  await probe.close()
  const { read } = prototype
  prototype.read = async function (this: FileHandle, ...args: unknown[]) {
    truncateSync(join(dir, 'a'), 10)
    return read.apply(this, args as never)
  } as typeof read
  t.same(await files.read('a'), { state: 'stuck', reason: 'EAGAIN' })
  prototype.read = read
  t.same(await files.read('a'), { state: 'read', content: 'x'.repeat(10) })
})

t.test('a file that goes while it is looked at is no error', async (t) => {
  const dir = join(home(t), 'spool')
  const files = openFiles(dir, { folders: { rejected: 10 } })
  await files.write('a')
  rmSync(join(dir, 'a'))
  t.same(await files.read('a'), { state: 'gone' })
  await t.resolves(files.remove('a'))
  await t.resolves(files.move('a', 'rejected', 'a'))
  t.same(await files.names({ folder: 'rejected' }), [])
  t.same(files.stuck(), [])
})

t.test('an ordinary user can do it all, and what it may not read is stuck', async (t) => {
  const root = home(t)
  const dir = join(root, 'spool')
  mkdirSync(dir)
  writeFileSync(join(dir, 'of-root'), 'x', { mode: 0o600 })
  const ordinary = isRoot ? foreignId : ownUid
  if (isRoot) {
    const groups = process.getgroups?.() ?? []
    chownSync(root, ordinary, ordinary)
    chownSync(dir, ordinary, ordinary)
    process.setgroups?.([])
    process.setegid?.(ordinary)
    process.seteuid?.(ordinary)
    t.teardown(() => {
      process.seteuid?.(0)
      process.setegid?.(0)
      process.setgroups?.(groups)
    })
  }
  const files = openFiles(dir, { folders: { rejected: 10 } })
  await files.check()
  await files.write('a')
  await files.write('b')
  writeFileSync(join(dir, 'closed'), 'x', { mode: 0o000 })
  t.same(await files.read('closed'), { state: 'stuck', reason: 'EACCES' })
  t.same(await files.read('of-root'), isRoot ? { state: 'stuck', reason: 'EACCES' } : { state: 'read', content: 'x' })
  t.same(await files.read('a'), { state: 'read', content: 'content' })
  await files.remove('a')
  await files.move('b', 'rejected', 'b')
  await files.move('closed', 'rejected', 'closed')
  t.same(await files.names({ folder: 'rejected' }), ['b', 'closed'])
  chmodSync(dir, 0o500)
  await t.rejects(files.write('c'), { code: 'ERR_SPOOL_NOT_WRITABLE', cause: { code: 'EACCES' } })
  await t.rejects(files.check(), { code: 'ERR_SPOOL_NOT_WRITABLE', cause: { code: 'EACCES' } })
  chmodSync(dir, 0o300)
  await t.rejects(files.names(), { code: 'ERR_SPOOL_NOT_READABLE', cause: { code: 'EACCES' } })
  chmodSync(dir, 0o700)
  await t.resolves(files.check())
})

t.test('a disk serves, and so does a file system in memory', async (t) => {
  for (const place of ['/var/tmp', '/dev/shm', tmpdir()].filter((path) => existsSync(path))) {
    const files = openFiles(join(home(t, place), 'spool'))
    await files.check()
    await files.write('a')
    t.same(await files.names(), ['a'], place)
  }
})

t.test('what is moved goes to its folder, and if there are too many the first ones go', async (t) => {
  const dir = join(home(t), 'spool')
  for (const max of [2, 25]) {
    const files = openFiles(dir, { folders: { [`max${max}`]: max } })
    let most = 0
    for (let i = 10; i < 60; i += 1) {
      await files.write(`a${i}`)
      await files.move(`a${i}`, `max${max}`, `m${i}`)
      most = Math.max(most, readdirSync(join(dir, `max${max}`)).length)
    }
    t.ok(most <= max && most >= 0.9 * max, `${most} of ${max}`)
    t.equal((await files.names({ folder: `max${max}` })).at(-1), 'm59')
    t.same(await files.names(), [])
    writeFileSync(join(dir, 'a'), 'x')
    rmSync(join(dir, `max${max}`), { recursive: true })
    writeFileSync(join(dir, `max${max}`), 'a file in the way')
    await t.rejects(files.move('a', `max${max}`, 'm'), { code: 'ERR_SPOOL_NOT_WRITABLE', message: /is no folder/ })
    rmSync(join(dir, `max${max}`))
    rmSync(join(dir, 'a'))
  }
})

t.test('what a killed process has half written goes, and what another is writing stays', async (t) => {
  const dir = join(home(t), 'spool')
  const files = openFiles(dir)
  await files.write('a')
  const old = '.00000000-0000-0000-0000-000000000001.part'
  const young = '.00000000-0000-0000-0000-000000000002.part'
  const folder = '.00000000-0000-0000-0000-000000000003.part'
  const others = '.old.part'
  mkdirSync(join(dir, folder))
  for (const name of [old, young, others]) {
    writeFileSync(join(dir, name), '{"at":1')
  }
  const anHourAgo = new Date(Date.now() - 3_600_000)
  for (const name of [old, folder, others]) {
    utimesSync(join(dir, name), anHourAgo, anHourAgo)
  }
  t.same(await openFiles(dir).names(), ['a'])
  t.same(readdirSync(dir).sort(), [young, folder, others, 'a'].sort())
})

t.test('a process that is killed has written whole what it said was written', async (t) => {
  const dir = join(home(t), 'spool')
  const module = new URL(`../src/durable-files${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)
  const script = `
    import { createDurableFiles } from ${JSON.stringify(module.href)}
    const files = createDurableFiles({ dir: ${JSON.stringify(dir)} })
    let next = 0
    await Promise.all(Array.from({ length: 16 }, async () => {
      for (;;) {
        const name = 'n' + next++
        await files.write(name, name.repeat(500), { withinMs: 30_000 })
        process.stdout.write(name + '\\n')
      }
    }))`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const reported: string[] = []
  for await (const name of createInterface(child.stdout)) {
    reported.push(name)
    if (reported.length === 100) {
      child.kill('SIGKILL')
    }
  }
  t.ok(reported.length >= 100)
  const files = openFiles(dir)
  const names = new Set(await files.names())
  t.same(
    reported.filter((name) => !names.has(name)),
    []
  )
  for (const name of names) {
    t.same(await files.read(name), { state: 'read', content: name.repeat(500) })
  }
})

t.test('a disk that takes no byte more is full, and nothing is left of the try', async (t) => {
  const dir = join(home(t), 'spool')
  const module = new URL(`../src/durable-files${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)
  // A limit of the process on the size of files is as good as a full disk, and needs no root.
  const script = `
    process.on('SIGXFSZ', () => {})
    const { createDurableFiles } = await import(${JSON.stringify(module.href)})
    const files = createDurableFiles({ dir: ${JSON.stringify(dir)} })
    const codes = []
    for (const work of [() => files.write('a', 'x', { withinMs: 30_000 }), () => files.check()]) {
      await work().catch(({ code, message }) => codes.push([code, message]))
    }
    await files.names()
    console.log(JSON.stringify(codes))`
  const output = execFileSync('bash', [
    '-c',
    'ulimit -f 0; exec "$0" --input-type=module -e "$1"',
    process.execPath,
    script
  ])
  const codes: [string, string][] = JSON.parse(String(output))
  t.same(
    codes.map(([code]) => code),
    ['ERR_SPOOL_FULL_DISK', 'ERR_SPOOL_FULL_DISK']
  )
  t.match(codes[0]?.[1], /spool" takes no more \(EFBIG\): make room/)
  t.same(readdirSync(dir), [])
})

t.test('a folder that cannot be made is an error, and is used again when it is mended', async (t) => {
  const dir = join(home(t), 'spool')
  writeFileSync(dir, 'a file in the way')
  const files = openFiles(dir)
  await t.rejects(files.write('a'), { code: 'ERR_SPOOL_NOT_WRITABLE', message: /spool" is no folder: remove it/ })
  await t.rejects(files.check(), { code: 'ERR_SPOOL_NOT_WRITABLE' })
  rmSync(dir)
  await t.resolves(files.check(), 'without a write that has to come first')
  t.equal(await files.write('a'), 'written')
  rmSync(dir, { recursive: true })
  t.equal(await files.write('b'), 'written', 'also if somebody removes it')
  t.same(await files.names(), ['b'])
})

t.test('a check tries to write, but not each time', async (t) => {
  const dir = join(home(t), 'spool')
  let time = 0
  const files = openFiles(dir, { now: () => time })
  let tries = 0
  await interceptSyncs(t, async (isFolder) => {
    tries += isFolder ? 0 : 1
  })
  await Promise.all(Array.from({ length: 10 }, () => files.check()))
  await files.check()
  t.equal(tries, 1)
  time += 10_000
  await files.check()
  t.equal(tries, 2)
  time += 9_000
  await files.write('a')
  time += 9_000
  await files.check()
  t.equal(tries, 3, 'a write is a try')
  t.same(readdirSync(dir), ['a'])
})

t.test('one sync of the folder serves several names, but on a slow disk nobody waits for the others', async (t) => {
  let time = 0
  let syncMs = 0
  let syncs = 0
  await interceptSyncs(t, async (isFolder) => {
    time += syncMs
    syncs += isFolder ? 1 : 0
  })
  const files = openFiles(join(home(t), 'spool'), { now: () => time })
  await files.check()
  for (const [ms, least, most] of [
    [0, 10, 20],
    [25, 40, 80]
  ] as const) {
    syncMs = ms
    syncs = 0
    await Promise.all(Array.from({ length: 80 }, (_, i) => files.write(`a${ms}-${i}`)))
    t.ok(syncs >= least && syncs <= most, `${syncs} syncs for 80 names, on a disk that takes ${ms} ms for each`)
  }
})

t.test('what has waited too long is not written', async (t) => {
  const dir = join(home(t), 'spool')
  const files = openFiles(dir)
  await files.check()
  await t.rejects(files.write('a', 'x', { withinMs: 0 }), { code: 'ERR_SPOOL_SLOW' })
  await files.write('b')
  await files.write('c')
  t.same(await files.names(), ['b', 'c'])
})

t.test('the preferred ones go first, and what waits is bounded', async (t) => {
  const dir = join(home(t), 'spool')
  const files = openFiles(dir, { maxWaitingBytes: 5 * 2_034 })
  await files.check()
  const names = ['first', 'second', 'o1', 'o2', 'o3', 'o4', 'o5', 'p1', 'p2']
  const begun: (string | undefined)[] = []
  const held: (() => void)[] = []
  await interceptSyncs(t, async (isFolder, size) => {
    if (!isFolder) {
      begun.push(names[size - 1_000])
      await new Promise<void>((resolve) => held.push(resolve))
    }
  })
  const failed: string[] = []
  const write = (name: string, isPreferred = false) =>
    files.write(name, 'x'.repeat(1_000 + names.indexOf(name)), { isPreferred }).catch((error) => {
      failed.push(`${name} ${error.code}`)
    })
  const all = [write('first'), write('second')]
  await until('two are held', () => held.length === 2)
  all.push(...['o1', 'o2', 'o3', 'o4'].map((name) => write(name)))
  all.push(write('p1', true), write('o2', true), write('o5'), write('p2', true))
  await until('two have failed', () => failed.length === 2)
  t.same(failed, ['o5 ERR_SPOOL_SLOW', 'o1 ERR_SPOOL_SLOW'], 'no more can wait, but a preferred one takes a place')
  for (let count = 3; count <= 7; count += 1) {
    t.equal(held.length, 2, 'never more than two at once')
    held.shift()?.()
    await until('the next one has begun', () => begun.length === count)
  }
  for (const release of held) {
    release()
  }
  await Promise.all(all)
  t.same(begun.slice(2), ['p1', 'o2', 'p2', 'o3', 'o4'], 'one that is asked for again as preferred is')
  t.same(await files.names(), ['first', 'o2', 'o3', 'o4', 'p1', 'p2', 'second'])
})

t.test('a disk that hangs holds nothing up, and what is written late is there', async (t) => {
  const dir = join(home(t), 'spool')
  let ahead = 0
  const files = openFiles(dir, { checkWithinMs: 100, now: () => performance.now() + ahead })
  await files.write('before')
  const release = hangFiles(t)
  const begun = performance.now()
  const late = (name: string) => t.rejects(files.write(name, 'x', { withinMs: 100 }), { code: 'ERR_SPOOL_SLOW' })
  await Promise.all(['late1', 'late2', 'late3'].map(late))
  await t.rejects(files.check(), { code: 'ERR_SPOOL_SLOW' })
  await t.rejects(files.names({ withinMs: 100 }), { code: 'ERR_SPOOL_SLOW' })
  t.ok(performance.now() - begun < 5_000)
  ahead = 2_001
  await t.rejects(
    files.write('never'),
    { code: 'ERR_SPOOL_SLOW', message: /every write hangs/ },
    'nobody is made to wait any more'
  )
  await t.rejects(files.check(), { code: 'ERR_SPOOL_SLOW' })
  ahead = 0
  release()
  await until('both are written', async () => (await files.names()).length === 3)
  t.same(await files.names(), ['before', 'late1', 'late2'], 'what was begun; the third was not')
  await t.resolves(openFiles(dir).check())
  t.equal(await files.write('late3'), 'written')
})

t.test('a disk that hangs leaves a thread for signatures', { timeout: 20_000 }, async (t) => {
  const dir = join(home(t), 'spool')
  const files = openFiles(dir, { folders: { rejected: 10 } })
  await files.write('a')
  // Reading a pipe that nobody writes to takes a thread, as a disk does that does not answer.
  const pipe = join(dir, '..', 'pipe')
  execFileSync('mkfifo', [pipe])
  const writer = await open(pipe, 'r+') // so that the openings themselves do not wait
  const prototype = Object.getPrototypeOf(writer) as FileHandle
  const { sync, stat } = prototype
  const hang = async () => {
    const reader = await open(pipe, 'r')
    await reader.read(Buffer.alloc(1), 0, 1)
    await reader.close()
  }
  prototype.sync = async function (this: FileHandle) {
    await hang()
    return sync.call(this)
  }
  prototype.stat = async function (this: FileHandle) {
    await hang()
    return stat.call(this)
  } as typeof stat
  const works = [
    ...Array.from({ length: 10 }, (_, i) => files.write(`w${i}`)),
    ...Array.from({ length: 10 }, (_, i) => files.read(`w${i}`)),
    ...['a', 'a', 'a'].map((name) => files.read(name)),
    files.names(),
    files.check(),
    files.remove('b'),
    files.move('b', 'rejected', 'b')
  ]
  await delay(100)
  const digest = await crypto.subtle.digest('SHA-256', new Uint8Array(10)) // which takes a thread
  t.equal(digest.byteLength, 32)
  prototype.sync = sync
  prototype.stat = stat
  await writer.write('x'.repeat(100))
  await Promise.all(works)
  await writer.close()
})
