import { randomUUID } from 'node:crypto'
import { constants, type Stats } from 'node:fs'
import { type FileHandle, lstat, mkdir, open, readdir, readlink, rename, unlink } from 'node:fs/promises'
import { dirname, join, parse, resolve, sep } from 'node:path'
// Who runs this is asked here and is no argument: if it were forgotten, nothing would be checked.
import process from 'node:process'

export interface DurableFilesOptions {
  /** The folder; made with mode 0700 when it is first written to. Processes of one user may share it. */
  readonly dir: string
  /** Folders inside it to which files can be moved, each with the most files that it holds; default none. */
  readonly folders?: Readonly<Record<string, number>>
  /** The largest file that is written or read, in bytes; default 1 MiB. */
  readonly maxFileBytes?: number
  /** The most memory for what waits to be written, in bytes; default 64 MiB. */
  readonly maxWaitingBytes?: number
  /** How long {@link DurableFiles.check} waits for the disk, in milliseconds; default 1000. */
  readonly checkWithinMs?: number
  /** Milliseconds from any beginning, never set back; default `performance.now`. */
  readonly now?: () => number
  /** Whose files and folders are trusted, beside root's; default the user and the groups of this process. */
  readonly user?: User
}

export interface User {
  /** Undefined on systems without user ids: then owners and modes are not looked at. */
  readonly uid: number | undefined
  readonly groupIds: readonly number[]
}

export interface WriteOptions {
  /** The time that is left, in milliseconds. */
  readonly withinMs: number
  /** Whether it goes before those that are not, and takes their place if no more can wait; default false. */
  readonly isPreferred?: boolean
}

/** `gone`: there is no such file, or no more. `stuck`: it cannot be read, or is not to be believed. */
export type Reading =
  | { readonly state: 'read'; readonly content: string }
  | { readonly state: 'gone' }
  | { readonly state: 'stuck'; readonly reason: StuckReason }

/** Anything else is the system's code: `EACCES`, `EIO`, … */
export type StuckReason = 'not-a-file' | 'too-large' | 'foreign-owner' | 'writable-by-others' | `E${string}`

export interface StuckFile {
  readonly name: string
  readonly reason: StuckReason
}

/**
 * A folder of small files that survive a crash. Names have letters, digits, `.`, `_` and `-`, begin with a letter or a
 * digit, and are at most 200 characters long; what else is in the folder is left alone.
 *
 * It never holds more than three of Node's four threads for files: if the disk hangs, signatures are still verified.
 */
export interface DurableFiles {
  /**
   * Resolves once the file is on disk, whole and under its name: it survives a crash from then on. The same name again is
   * the same file: `exists`, and the content that was first stays.
   *
   * @throws {FilesError} if that could not be done in time; it may be written later all the same
   * @throws {RangeError} if the name or the size is not acceptable
   */
  write(name: string, content: string, options: WriteOptions): Promise<'written' | 'exists'>
  /**
   * The names that are there at the call or later, sorted; empty if there is no folder yet. Nothing is made by it, and
   * what crashed writes have left is removed.
   *
   * @param options.folder one of the folders inside
   * @param options.withinMs the time that is left, in milliseconds; default as long as it takes
   * @throws {FilesError} if the folder cannot be read or is not trusted
   */
  names(options?: { readonly folder?: string; readonly withinMs?: number }): Promise<readonly string[]>
  /** Never waits for what is no regular file, and never reads more than a file may have. */
  read(name: string): Promise<Reading>
  /**
   * Does nothing if it is gone. A crash may bring it back.
   *
   * @throws {FilesError} if it could not be removed
   */
  remove(name: string): Promise<void>
  /**
   * Moves it to one of the folders inside, whose first names go if there are too many. Does nothing if it is gone.
   *
   * @throws {FilesError} if it could not be moved
   */
  move(name: string, folder: string, newName: string): Promise<void>
  /** The files that could not be read when they were last read, and are still there. */
  stuck(): readonly StuckFile[]
  /**
   * Resolves if a file can be written now. It tries, unless one was written in the last ten seconds.
   *
   * @throws {FilesError} if it cannot, with the reason
   */
  check(): Promise<void>
}

export type FilesErrorCode =
  /** The disk is full, or the user's part of it. */
  | 'ERR_SPOOL_FULL_DISK'
  /** The folder cannot be made or written. */
  | 'ERR_SPOOL_NOT_WRITABLE'
  /** The folder cannot be read. */
  | 'ERR_SPOOL_NOT_READABLE'
  /** Others can write the folder or one above it. */
  | 'ERR_SPOOL_UNTRUSTED'
  /** The disk takes longer than there is time. */
  | 'ERR_SPOOL_SLOW'

/** Our disk's fault; the message says what to do about it, and quotes no content. */
export class FilesError extends Error {
  readonly code: FilesErrorCode

  constructor(code: FilesErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'FilesError'
    this.code = code
  }
}

type Written = 'written' | 'exists'

const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/
const partPattern = /^\.[0-9a-f-]{36}\.part$/
const maxPartAgeMs = 60_000
const maxPartsAtOnce = 100
const trialEveryMs = 10_000
const trialBytes = 4_096 // fewer may fit into a block that a full disk has left

/** Opens the folder; nothing is done before the first call. */
export function createDurableFiles(options: DurableFilesOptions): DurableFiles {
  const {
    folders = {},
    maxFileBytes = 2 ** 20,
    maxWaitingBytes = 2 ** 26,
    checkWithinMs = 1_000,
    now = () => performance.now(),
    user = currentUser()
  } = options
  const dir = resolve(options.dir)
  const trust = createTrust(user)
  const reader = createReader(trust, maxFileBytes)
  let isPrepared = false
  let lastSuccessAt: number | undefined
  const stuck = new Map<string, StuckReason>()
  const movedSincePruned = new Map<string, number>()
  const queue = createWriteQueue({ write: writeFile, sync: () => syncFolder(dir), maxWaitingBytes, now })
  // What is no write goes one by one, so that a disk that hangs holds one thread by it.
  const oneByOne = createSequence()
  const readings = new Map(
    ['', ...Object.keys(folders)].map((folder) => [folder, createRounds(() => oneByOne(() => listFolder(folder)))])
  )
  const checkRound = createRounds(() => oneByOne(tryToWrite))

  /** Makes the folder if it is missing, and those above it. */
  async function prepare(): Promise<void> {
    isPrepared = false // it may be trusted no more
    const missing = await trust.findMissing(dir)
    if (missing === undefined) {
      isPrepared = true
      return
    }
    await mkdir(missing, { mode: 0o700 }).catch(ignore('EEXIST')) // another process was faster
    await syncFolder(dirname(missing)) // else a crash may forget it
    await prepare()
  }

  async function writeFile(name: string, content: string, requireTime: () => void): Promise<Written> {
    if (!isPrepared) {
      await prepare()
    }
    requireTime()
    try {
      return await putFile(join(dir, name), content)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') {
        throw error
      }
      await prepare() // somebody has removed the folder
      return putFile(join(dir, name), content)
    }
  }

  async function putFile(path: string, content: string): Promise<Written> {
    if (await reader.hasFile(path)) {
      return 'exists'
    }
    const part = await writePart(dir, content)
    try {
      await rename(part, path)
    } catch (error) {
      await unlink(part).catch(() => {}) // the first error says why
      throw error
    }
    return 'written'
  }

  async function listFolder(folder: string): Promise<readonly string[]> {
    const isMissing = (await trust.findMissing(dir)) !== undefined
    const entries = (isMissing ? undefined : await readdir(join(dir, folder)).catch(ignore('ENOENT'))) ?? []
    if (folder === '') {
      await removeOldParts(dir, entries, trust)
    }
    return entries.filter((name) => namePattern.test(name) && !(folder === '' && readings.has(name))).sort()
  }

  function forgetStuck(names: readonly string[]): void {
    const found = new Set(stuck.size > 0 ? names : [])
    for (const name of stuck.keys()) {
      if (!found.has(name)) {
        stuck.delete(name)
      }
    }
  }

  async function moveFile(name: string, folder: string, newName: string): Promise<void> {
    const target = join(dir, folder)
    await mkdir(target, { mode: 0o700 }).catch(ignore('EEXIST', 'ENOENT'))
    const stats = await lstat(target).catch(ignore('ENOENT'))
    if (stats !== undefined && !stats.isDirectory()) {
      throw new FilesError('ERR_SPOOL_NOT_WRITABLE', `"${target}" is no folder: remove it`)
    }
    await rename(join(dir, name), join(target, newName)).catch(ignore('ENOENT'))
    await prune(folder)
  }

  async function prune(folder: string): Promise<void> {
    const max = folders[folder] ?? 0
    const slack = Math.floor(max / 10) // not a reading of the folder for each file
    const moved = (movedSincePruned.get(folder) ?? slack) + 1
    movedSincePruned.set(folder, moved)
    if (moved >= slack) {
      movedSincePruned.set(folder, 0)
      const names = await listFolder(folder)
      for (const name of names.slice(0, Math.max(0, names.length - (max - slack)))) {
        await unlink(join(dir, folder, name)).catch(ignore('ENOENT'))
      }
    }
  }

  async function tryToWrite(): Promise<void> {
    try {
      await prepare()
      if (lastSuccessAt === undefined || now() - lastSuccessAt >= trialEveryMs) {
        await unlink(await writePart(dir, '-'.repeat(trialBytes)))
        lastSuccessAt = now()
      }
    } catch (error) {
      throw failed(error)
    }
  }

  function failed(error: unknown): FilesError {
    lastSuccessAt = undefined
    return filesError(error, dir, 'ERR_SPOOL_NOT_WRITABLE')
  }

  async function change(name: string, work: () => Promise<void>): Promise<void> {
    try {
      await oneByOne(work)
      stuck.delete(name)
    } catch (error) {
      throw filesError(error, dir, 'ERR_SPOOL_NOT_WRITABLE')
    }
  }

  return {
    async write(name, content, { withinMs, isPreferred = false }) {
      requireName(name)
      const bytes = Buffer.byteLength(content)
      if (bytes > maxFileBytes) {
        throw new RangeError(`a file has at most ${maxFileBytes} bytes: ${bytes} are too many`)
      }
      try {
        const written = await within(queue.add({ name, content, bytes, withinMs, isPreferred }), withinMs)
        lastSuccessAt = now()
        stuck.delete(name) // it was replaced
        return written
      } catch (error) {
        throw failed(error)
      }
    },

    async names({ folder = '', withinMs } = {}) {
      const read = readings.get(folder)
      if (read === undefined) {
        throw new RangeError(`"${folder}" is none of the folders`)
      }
      try {
        const names = await within(read(), withinMs)
        if (folder === '') {
          forgetStuck(names)
        }
        return names
      } catch (error) {
        isPrepared = false // it may be trusted no more
        throw filesError(error, dir, 'ERR_SPOOL_NOT_READABLE')
      }
    },

    async read(name) {
      requireName(name)
      const reading = await oneByOne(() => reader.readFile(join(dir, name)))
      if (reading.state === 'stuck') {
        stuck.set(name, reading.reason)
      } else {
        stuck.delete(name)
      }
      return reading
    },

    async remove(name) {
      requireName(name)
      await change(name, () => unlink(join(dir, name)).catch(ignore('ENOENT')))
    },

    async move(name, folder, newName) {
      requireName(name)
      requireName(newName)
      if (!readings.has(folder) || folder === '') {
        throw new RangeError(`"${folder}" is none of the folders`)
      }
      await change(name, () => moveFile(name, folder, newName))
    },

    stuck: () => [...stuck].map(([name, reason]) => ({ name, reason })),

    async check() {
      try {
        queue.requireProgress()
        await within(checkRound(), checkWithinMs)
      } catch (error) {
        throw filesError(error, dir, 'ERR_SPOOL_NOT_WRITABLE')
      }
    }
  }
}

interface Opened {
  readonly state: 'open'
  readonly file: FileHandle
  readonly size: number
}

/** Reads files that may be no files, or not ours. */
function createReader(trust: Trust, maxFileBytes: number) {
  function whyStuck(stats: Stats): StuckReason | undefined {
    if (!stats.isFile()) {
      return 'not-a-file'
    }
    if (!trust.isOwner(stats)) {
      return 'foreign-owner'
    }
    if (trust.isWritableByOthers(stats)) {
      return 'writable-by-others'
    }
    return stats.size > maxFileBytes ? 'too-large' : undefined
  }

  /** Never waits for another process, as the opening of a named pipe would. */
  async function openFile(path: string): Promise<Opened | Exclude<Reading, { state: 'read' }>> {
    let file: FileHandle | undefined
    try {
      file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
      const stats = await file.stat()
      const reason = whyStuck(stats)
      if (reason === undefined) {
        return { state: 'open', file, size: stats.size }
      }
      await file.close()
      return { state: 'stuck', reason }
    } catch (error) {
      await file?.close().catch(() => {}) // the first error says why
      const code = codeOf(error)
      // ELOOP: a symbolic link; ENXIO: a socket.
      const reason = code === 'ELOOP' || code === 'ENXIO' ? 'not-a-file' : code
      return code === 'ENOENT' ? { state: 'gone' } : { state: 'stuck', reason }
    }
  }

  return {
    /** False if what is there could not be read later. */
    async hasFile(path: string): Promise<boolean> {
      const opened = await openFile(path)
      if (opened.state !== 'open') {
        return false
      }
      await opened.file.close()
      return opened.size > 0
    },

    async readFile(path: string): Promise<Reading> {
      const opened = await openFile(path)
      if (opened.state !== 'open') {
        return opened
      }
      const { file, size } = opened
      try {
        const { bytesRead, buffer } = await file.read(Buffer.alloc(size), 0, size, 0)
        return bytesRead === size
          ? { state: 'read', content: buffer.toString('utf8') }
          : { state: 'stuck', reason: 'EAGAIN' } // it changes: the next reading may have it whole
      } catch (error) {
        return { state: 'stuck', reason: codeOf(error) }
      } finally {
        await file.close().catch(() => {}) // what was read is read
      }
    }
  }
}

interface Job {
  readonly name: string
  readonly content: string
  readonly bytes: number
  isPreferred: boolean
  /** The latest time of all who wait for it. */
  overdueAt: number
  readonly done: Promise<Written>
  readonly resolve: (written: Written) => void
  readonly reject: (error: unknown) => void
}

interface WriteQueueOptions {
  /** @param requireTime throws if nobody waits for it any more */
  readonly write: (name: string, content: string, requireTime: () => void) => Promise<Written>
  /** Makes the names of all that is written by then durable. */
  readonly sync: () => Promise<void>
  readonly maxWaitingBytes: number
  readonly now: () => number
}

// More gain nothing, since each waits for the disk; and Node's four threads for files serve signatures too.
const maxAtOnce = 2
// While others wait to be written, one sync serves several names: as many as this time has room for.
const unsyncedMs = 20
const maxUnsynced = 8
const jobBytes = 1_024 // beside its content
// Longer than any answer takes: then no more are made to wait, since each takes memory.
const hangsAfterMs = 2_000

/** What waits to be written: each name once, the preferred ones first, two at a time, with a sync for several. */
function createWriteQueue({ write, sync, maxWaitingBytes, now }: WriteQueueOptions) {
  // From the call until it has its answer.
  const jobs = new Map<string, Job>()
  const preferred = new Set<Job>()
  const others = new Set<Job>()
  let unsynced: { readonly job: Job; readonly written: Written }[] = []
  let waitingBytes = 0
  let active = 0
  let lastProgressAt = now()
  let lastTookMs = 0

  function laneOf({ isPreferred }: Job): Set<Job> {
    return isPreferred ? preferred : others
  }

  function enter(job: Job): void {
    laneOf(job).add(job)
    waitingBytes += job.bytes
  }

  function leave(job: Job): boolean {
    const hasWaited = laneOf(job).delete(job)
    waitingBytes -= hasWaited ? job.bytes : 0
    return hasWaited
  }

  /** @throws {SlowError} if no more can wait */
  function makeRoom(bytes: number, isPreferred: boolean): void {
    while (waitingBytes + bytes > maxWaitingBytes) {
      const [first] = preferred
      const [other] = others
      const overdue = [other, first].find((job) => job !== undefined && now() >= job.overdueAt)
      const job = overdue ?? (isPreferred ? other : undefined)
      if (job === undefined) {
        throw new SlowError('too many writes wait')
      }
      leave(job)
      job.reject(new SlowError('too many writes wait'))
    }
  }

  function requireTime({ overdueAt }: Job): void {
    if (now() >= overdueAt) {
      throw new SlowError('a write waited too long')
    }
  }

  function take(): Job | undefined {
    const [job] = preferred.size > 0 ? preferred : others
    if (job !== undefined) {
      leave(job)
    }
    return job
  }

  function advance(): void {
    while (active < maxAtOnce) {
      const isSyncDue = unsynced.length >= Math.min(maxUnsynced, Math.max(1, unsyncedMs / lastTookMs))
      const job = isSyncDue ? undefined : take()
      if (job !== undefined) {
        void run(() => writeJob(job))
      } else if (unsynced.length > 0) {
        void run(syncJobs)
      } else {
        return
      }
    }
  }

  async function run(work: () => Promise<void>): Promise<void> {
    const begunAt = now()
    active += 1
    lastProgressAt = begunAt
    await work()
    active -= 1
    lastProgressAt = now()
    lastTookMs = lastProgressAt - begunAt
    advance()
  }

  async function writeJob(job: Job): Promise<void> {
    try {
      const written = await write(job.name, job.content, () => requireTime(job))
      unsynced.push({ job, written })
    } catch (error) {
      job.reject(error)
    }
  }

  /** A crash may forget a name before this. */
  async function syncJobs(): Promise<void> {
    const batch = unsynced
    unsynced = []
    try {
      await sync()
      for (const { job, written } of batch) {
        job.resolve(written)
      }
    } catch (error) {
      for (const { job } of batch) {
        job.reject(error)
      }
    }
  }

  /** @throws {SlowError} if every write hangs */
  function requireProgress(): void {
    if (active === maxAtOnce && now() - lastProgressAt > hangsAfterMs) {
      throw new SlowError('every write hangs')
    }
  }

  return {
    requireProgress,

    async add(file: { name: string; content: string; bytes: number; withinMs: number; isPreferred: boolean }) {
      const { name, content, withinMs, isPreferred } = file
      const overdueAt = now() + withinMs
      const same = jobs.get(name)
      if (same !== undefined) {
        same.overdueAt = Math.max(same.overdueAt, overdueAt)
        if (isPreferred && leave(same)) {
          same.isPreferred = true
          enter(same)
        }
        await same.done
        return 'exists'
      }
      requireProgress()
      const bytes = file.bytes + jobBytes
      makeRoom(bytes, isPreferred)
      const job: Job = { name, content, bytes, isPreferred, overdueAt, ...createSettlement<Written>() }
      jobs.set(name, job)
      job.done.catch(() => {}).finally(() => jobs.delete(name))
      enter(job)
      advance()
      return job.done
    }
  }
}

function currentUser(): User {
  return { uid: process.geteuid?.(), groupIds: [process.getegid?.() ?? 0, ...(process.getgroups?.() ?? [])] }
}

/**
 * Looks at a folder that is not made yet, and at those above it, as {@link createDurableFiles} does before it makes it.
 *
 * @param dir an absolute path
 * @returns the first folder on its way that is not there
 * @throws {FilesError} if others could put another folder in its place
 */
export function findMissing(dir: string): Promise<string | undefined> {
  return createTrust(currentUser()).findMissing(dir)
}

type Trust = ReturnType<typeof createTrust>

/** Whether what is on disk can have been changed by nobody but this user and root. */
function createTrust({ uid, groupIds }: User) {
  const groups = new Set([0, ...groupIds])

  function isOwner(stats: Stats): boolean {
    return uid === undefined || stats.uid === uid || stats.uid === 0
  }

  /** The members of our own groups are no others: Kubernetes gives a volume to a group (`fsGroup`), OpenShift to root's. */
  function isWritableByOthers(stats: Stats): boolean {
    const { mode, gid } = stats
    return uid !== undefined && ((mode & 0o002) !== 0 || ((mode & 0o020) !== 0 && !groups.has(gid)))
  }

  /** @throws {FilesError} */
  function requireTrust(path: string, stats: Stats, isSticky: boolean): void {
    if (!isOwner(stats)) {
      throw untrusted(
        `"${path}" belongs to user ${stats.uid}, and this is user ${uid}: "chown ${uid} ${path}", run it as that user, or choose another folder`
      )
    }
    if (isWritableByOthers(stats) && !isSticky) {
      const mode = (stats.mode & 0o7777).toString(8).padStart(4, '0')
      const who = (stats.mode & 0o002) === 0 ? `group ${stats.gid}` : 'every user'
      throw untrusted(
        `"${path}" can be written by ${who} (mode ${mode}): "chmod go-w ${path}", or choose a folder that is this user's own`
      )
    }
  }

  return {
    isOwner,
    isWritableByOthers,

    /**
     * Looks at each folder on the way from the root, as `..` and symbolic links have it: who can write one of them can put
     * another folder in this one's place. Resolves with the first one that is not there yet.
     *
     * @throws {FilesError} if one is not trusted
     */
    async findMissing(dir: string): Promise<string | undefined> {
      let at = parse(dir).root
      const left = dir.slice(at.length).split(sep)
      let links = 0
      for (let part = left.shift(); part !== undefined; part = left.shift()) {
        const next = part === '..' ? dirname(at) : join(at, part)
        const stats = await lstat(next).catch(ignore('ENOENT'))
        if (stats === undefined) {
          return next
        }
        if (stats.isSymbolicLink()) {
          const target = await readlink(next)
          links += 1
          if (left.length === 0 || links > 40) {
            throw untrusted(`"${next}" is a symbolic link: name the folder itself, "${resolve(at, target)}"`)
          }
          if (!isOwner(stats)) {
            requireTrust(next, stats, true)
          }
          const { root } = parse(target)
          at = root === '' ? at : root
          left.unshift(...target.slice(root.length).split(sep))
          continue
        }
        if (!stats.isDirectory()) {
          throw new FilesError('ERR_SPOOL_NOT_WRITABLE', `"${next}" is no folder: remove it, or choose another folder`)
        }
        // In a sticky folder, as /tmp, nobody can take away what is another's; but anybody can add files.
        requireTrust(next, stats, left.length > 0 && (stats.mode & 0o1000) !== 0)
        at = next
      }
      return undefined
    }
  }
}

function untrusted(message: string): FilesError {
  return new FilesError('ERR_SPOOL_UNTRUSTED', message)
}

function filesError(error: unknown, dir: string, otherwise: FilesErrorCode): FilesError {
  if (error instanceof FilesError) {
    return error
  }
  if (error instanceof SlowError) {
    return new FilesError('ERR_SPOOL_SLOW', `"${dir}" is too slow (${error.message}): look at its disk`, {
      cause: error
    })
  }
  const code = codeOf(error)
  // EFBIG: the limit of the process on a file's size.
  if (['ENOSPC', 'EDQUOT', 'EFBIG'].includes(code)) {
    return new FilesError('ERR_SPOOL_FULL_DISK', `"${dir}" takes no more (${code}): make room on its disk`, {
      cause: error
    })
  }
  const verb = otherwise === 'ERR_SPOOL_NOT_READABLE' ? 'read' : 'written'
  return new FilesError(otherwise, `"${dir}" cannot be ${verb} (${code}): look at its disk and its owner`, {
    cause: error
  })
}

/** Its message is what was not done in time. */
class SlowError extends Error {}

function within<T>(work: Promise<T>, ms: number | undefined): Promise<T> {
  if (ms === undefined) {
    return work
  }
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new SlowError(`it takes longer than ${Math.round(ms)} ms`)), ms)
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

function createSettlement<T>() {
  let resolve: (value: T) => void = () => {}
  let reject: (error: unknown) => void = () => {}
  const done = new Promise<T>((onDone, onFailed) => {
    resolve = onDone
    reject = onFailed
  })
  return { done, resolve, reject }
}

/** Makes the function that runs what it is given one after the other. */
function createSequence(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return (work) => {
    const next = last.then(work)
    last = next.catch(() => {}) // its caller has it
    return next
  }
}

/** Makes the function that runs the work once for all who have called before it begins. */
function createRounds<T>(work: () => Promise<T>): () => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  let next: Promise<T> | undefined
  return () => {
    if (next === undefined) {
      next = last.then(() => {
        next = undefined
        return work()
      })
      last = next.catch(() => {}) // its callers have it
    }
    return next
  }
}

/** What a process that was killed has left half written; a younger one may still be another process's work. */
async function removeOldParts(dir: string, names: readonly string[], trust: Trust): Promise<void> {
  for (const part of names.filter((name) => partPattern.test(name)).slice(0, maxPartsAtOnce)) {
    const path = join(dir, part)
    const stats = await lstat(path).catch(() => undefined) // another process was faster
    if (stats !== undefined && trust.isOwner(stats) && Math.abs(Date.now() - stats.mtimeMs) > maxPartAgeMs) {
      await unlink(path).catch(() => {}) // the next reading tries again
    }
  }
}

async function writePart(dir: string, content: string): Promise<string> {
  const path = join(dir, `.${randomUUID()}.part`)
  const file = await open(path, 'wx', 0o600)
  try {
    await file.writeFile(content)
    await file.sync()
  } catch (error) {
    await file.close().catch(() => {}) // the first error says why
    await unlink(path).catch(() => {})
    throw error
  }
  await file.close()
  return path
}

function requireName(name: string): void {
  if (!namePattern.test(name)) {
    throw new RangeError('a name has 1 to 200 letters, digits, ".", "_" and "-", and begins with a letter or a digit')
  }
}

async function syncFolder(dir: string): Promise<void> {
  const folder = await open(dir, 'r')
  try {
    await folder.sync().catch(ignore('EINVAL', 'ENOTSUP')) // some file systems have no such thing, and need none
  } finally {
    await folder.close()
  }
}

function codeOf(error: unknown): `E${string}` {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return code.startsWith('E') ? `E${code.slice(1)}` : 'EUNKNOWN'
}

function ignore(...codes: string[]): (error: unknown) => undefined {
  return (error) => {
    if (!codes.includes(codeOf(error))) {
      throw error
    }
    return undefined
  }
}
