/**
 * Threads that are ready before the moment that counts.
 *
 * @module
 */
import { resolveCompression, type Compression } from "../codec/registry.ts";
import type { CompressionMethod } from "../codec/methods.ts";
import { LimitError } from "../errors.ts";
import { CHANNELS_MAX, REHEARSED_CHANNELS_MAX } from "../limits.ts";
import { checkPageSize } from "../memory/ram_block_options.ts";
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import type { RehearsalJob } from "../rehearsal/rehearse.ts";
import { SessionControl } from "../sync/session_control.ts";
import {
  idleThreads,
  releaseIdle,
  reserve,
  reservedThreads,
  takeThread,
  type ThreadCount,
} from "../thread/idle_threads.ts";
import type { ThreadJob } from "../thread/thread_messages.ts";
import { senderChannels } from "./channel_count.ts";

/** Threads that all calls together may have wait: those of two migrations of the most channels. */
const PREPARED_THREADS_MAX = 2 * (CHANNELS_MAX + 1);

/** Calls of {@linkcode releaseThreads}: what was prepared before one is not there any more. */
let releases = 0;

/** What threads are prepared for. */
export interface PrepareOptions {
  /** Channels of a session, 1 to 255 or "auto". Default 2. */
  readonly channels?: number | "auto" | undefined;
  /** Method, or method, level and engine. Default none. */
  readonly compression?: CompressionMethod | Compression | undefined;
  /** Which side this process will be; default both, with threads of their own each. */
  readonly side?: "source" | "destination" | undefined;
  /** Bytes of a page. Default 4096. */
  readonly pageSize?: number | undefined;
  /** Whether its connections will be encrypted. Default false. */
  readonly tls?: boolean | undefined;
}

const PREPARE_OPTIONS = {
  channels: true,
  compression: true,
  side: true,
  pageSize: true,
  tls: true,
} satisfies OptionNames<PrepareOptions>;

/** Has a thread load what it is likely to need. */
export interface GetReadyJob {
  readonly role: "get-ready";
}

const GET_READY = { role: "get-ready" } as const satisfies GetReadyJob;

type ReadyingJob = ThreadJob & (RehearsalJob | GetReadyJob);

/** Threads that wait for sessions of the thread that called {@linkcode prepare}. */
export class PreparedThreads implements AsyncDisposable {
  readonly #release: () => Promise<void>;
  #released: Promise<void> | undefined;

  /** Made by {@linkcode prepare}. */
  constructor(release: () => Promise<void>) {
    this.#release = release;
  }

  /** Ends as many idle threads; what works meanwhile goes on. Safe to call twice. */
  [Symbol.asyncDispose](): Promise<void> {
    return (this.#released ??= this.#release());
  }
}

/**
 * Starts the threads of a session and has them load and rehearse their code, so that the next session
 * of the calling thread begins at once. They wait for as long as it takes, do not keep the process
 * alive, and come back when a session has ended. Each call adds to those before.
 *
 * @returns When all are ready. Dispose it, or call {@linkcode releaseThreads}, to be rid of them.
 * @throws {RangeError | TypeError} for options that cannot work.
 * @throws {LimitError} when more threads would wait than a process may keep.
 * @throws {SystemError} when the machine has no memory, or no number, for one thread more.
 *
 * @example
 * ```ts
 * await using threads = await prepare({ channels: 4, compression: "zstd", side: "source" });
 * // Later, when every millisecond counts:
 * await using sender = await connect({ endpoint, channels: 4, compression: "zstd", blocks });
 * ```
 */
export async function prepare(options: PrepareOptions = {}): Promise<PreparedThreads> {
  checkOptionNames(PREPARE_OPTIONS, options);
  const { side, pageSize = 4096, tls = false } = options;
  checkPageSize(pageSize);
  const count = senderChannels(options.channels);
  const sides = side === undefined ? (["source", "destination"] as const) : [side];
  const program = tls ? "entry" : "channel_entry";
  const groups = sides.map((one): { count: ThreadCount; job: ReadyingJob } => {
    const [channel, direction] =
      one === "source"
        ? (["send-channel", "encode"] as const)
        : (["receive-channel", "decode"] as const);
    const compression = resolveCompression(options.compression, direction, pageSize);
    const plan = { pageSize, compression, devices: false };
    return { count: { program, count }, job: { role: "rehearse", channel, plan } };
  });
  groups.push({
    count: { program: "entry", count: sides.length },
    job: GET_READY,
  });
  const counts = groups.map((group) => group.count);
  const threads = counts.reduce((sum, group) => sum + group.count, reservedThreads());
  if (threads > PREPARED_THREADS_MAX) {
    throw new LimitError(
      "ERR_MULTIFD_LIMIT_THREADS",
      `Cannot prepare threads: ${threads} would wait, must be at most ${PREPARED_THREADS_MAX}; ` +
        "releaseThreads() ends them",
    );
  }
  for (const group of counts) reserve(group);
  const before = releases;
  const prepared = new PreparedThreads(async () => {
    if (releases !== before) return;
    for (const reserved of counts) reserve({ ...reserved, count: -reserved.count });
    await Promise.all(counts.map((one) => releaseIdle(one)));
  });
  try {
    await readyAll(groups);
    return prepared;
  } catch (error) {
    await prepared[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Ends all threads that are idle in the calling thread, prepared ones included; those that work end
 * with their sessions. Without it they end by themselves after half a minute, prepared ones with the
 * process.
 *
 * @returns When those that were idle have ended.
 *
 * @example
 * ```ts
 * await releaseThreads();
 * ```
 */
export function releaseThreads(): Promise<void> {
  releases++;
  return releaseIdle();
}

/** Has idle or new threads do their job once, so that as many as are reserved are idle then. */
async function readyAll(
  groups: readonly { readonly count: ThreadCount; readonly job: ReadyingJob }[],
): Promise<void> {
  const control = new SessionControl();
  // Those of earlier calls that work now are replaced; all are taken before one can come back.
  const missing = new Map(
    groups.map(({ count: { program } }) => [
      program,
      idleThreads(program) < reservedThreads(program) ? reservedThreads(program) : 0,
    ]),
  );
  const taken = groups.flatMap(({ count: { program, count }, job }) => {
    const role = job.role === "rehearse" ? job.channel : job.role;
    return Array.from({ length: count }, (_, index) => {
      missing.set(program, (missing.get(program) ?? 0) - 1);
      return {
        thread: takeThread(program, role),
        job: index < REHEARSED_CHANNELS_MAX ? job : GET_READY,
      };
    });
  });
  for (const [program, count] of missing) {
    for (let more = 0; more < count; more++) {
      taken.push({ thread: takeThread(program, GET_READY.role), job: GET_READY });
    }
  }
  const ends = taken.map(({ thread, job }) => {
    const working = thread.run(job, control);
    working.ref();
    return new Promise<void>((ended) => working.onExit(ended));
  });
  await Promise.all(ends);
  control.throwIfFailed();
}
