/** Threads that stay from one session to the next: what they keep, and what they must not keep. */
import { afterEach, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import {
  connect,
  listen,
  prepare,
  RamBlock,
  releaseThreads,
  ThreadPool,
  type ListenOptions,
} from "../mod.ts";
import { IDLE_THREADS_MAX, takeThread } from "../lib/thread/idle_threads.ts";
import { SessionControl } from "../lib/sync/session_control.ts";
import { rejectionOf } from "./kit/errors.ts";
import { LimitMs, testTimeouts } from "./kit/limits.ts";
import { differingPages, fillBlock } from "./kit/page_content.ts";
import { handshake, mainStream, packet, RawSource, syncPacket } from "./kit/raw_peer.ts";
import { resourcesNow, settledResources, type Resources } from "./kit/resources.ts";
import { fixtureResult, runCommand } from "./kit/subprocess.ts";
import { until } from "./kit/threads.ts";
import { transfer } from "./kit/transfer.ts";
import { bun, repositoryRoot } from "./setup/command.ts";

const block = RamBlock.allocate("pc.ram", 200 * 4096);
fillBlock(block, 5);

async function expectTransfer(options: Partial<ListenOptions> = {}): Promise<void> {
  const { blocks } = await transfer({ sender: { blocks: [block] }, both: options });
  expect(differingPages(block, blocks[0]!)).toEqual([]);
}

let none: Resources;
beforeAll(async () => {
  await expectTransfer(); // the runtime starts threads of its own the first time
  none = await settledResources();
});
afterEach(() => releaseThreads());

const workers = (): number => resourcesNow().workers - none.workers;

test("the next session has the threads of the last one, and releaseThreads() ends them", async () => {
  for (let session = 0; session < 3; session++) {
    await expectTransfer();
    expect(workers()).toBe(6); // one and two channels on each side
  }
  await expectTransfer({ compression: "zstd" });
  expect(workers()).toBe(6);
  await releaseThreads();
  await until("no thread is left", () => workers() === 0);
});

test("what was prepared before releaseThreads() takes no thread away from what was after it", async () => {
  const options = { channels: 1, side: "source" } as const;
  const first = await prepare(options);
  await releaseThreads();
  await using second = await prepare(options);
  await first[Symbol.asyncDispose]();
  expect(workers()).toBe(2);
  await second[Symbol.asyncDispose]();
  await until("no thread is left", () => workers() === 0);
});

test("threads that work when releaseThreads() is called end with their session", async () => {
  await using receiver = await listen({ endpoint: "127.0.0.1:0", timeouts: testTimeouts });
  await releaseThreads();
  expect(workers()).toBe(3);
  await receiver[Symbol.asyncDispose]();
  await until("no thread is left", () => workers() === 0);
});

test("prepare() has all threads of a session ready, which takes them and gives them back", async () => {
  await using threads = await prepare({ channels: 3, compression: "zstd" });
  expect(workers()).toBe(8);
  for (let session = 0; session < 2; session++) {
    await expectTransfer({ channels: 3, compression: "zstd" });
    expect(workers()).toBe(8);
  }
  await using more = await prepare({ channels: 1, side: "source" });
  expect(workers()).toBe(10);
  await more[Symbol.asyncDispose]();
  await until("those of the second call are gone", () => workers() === 8);
  await threads[Symbol.asyncDispose]();
  await until("no thread is left", () => workers() === 0);
  await threads[Symbol.asyncDispose]();
});

test("prepare() refuses what cannot work and more threads than a process may keep", async () => {
  const wrong = { chanels: 2 } as object;
  await expect(prepare(wrong)).rejects.toThrow(TypeError);
  await expect(prepare({ channels: 256 })).rejects.toThrow(RangeError);
  await expect(prepare({ pageSize: 5000 })).rejects.toThrow(RangeError);
  await prepare({ channels: 1 });
  expect(await rejectionOf(prepare({ channels: 255 }))).toMatchObject({
    code: "ERR_MULTIFD_LIMIT_THREADS",
  });
});

test("no more threads wait than the limit, unless they are prepared", async () => {
  await using threads = await prepare({ channels: 18 });
  expect(workers()).toBe(38);
  // They were reserved, and are not any more when they come back.
  const busy = await listen({ endpoint: "127.0.0.1:0", channels: 18, timeouts: testTimeouts });
  const second = await listen({ endpoint: "127.0.0.1:0", channels: 18, timeouts: testTimeouts });
  await threads[Symbol.asyncDispose]();
  await Promise.all([busy[Symbol.asyncDispose](), second[Symbol.asyncDispose]()]);
  await until("the surplus is gone", () => workers() <= IDLE_THREADS_MAX);
  expect(workers()).toBeGreaterThan(IDLE_THREADS_MAX - 2);
});

test("failing, hostile and cancelled sessions leave nothing to the next one", async () => {
  await expectTransfer();
  const hostile = async (bytes: readonly Uint8Array[]): Promise<unknown> => {
    await using receiver = await listen({
      endpoint: "127.0.0.1:0",
      channels: 1,
      compression: "zstd",
      timeouts: testTimeouts,
    });
    await using peer = new RawSource(receiver.endpoint);
    const main = await peer.open();
    const channel = await peer.open();
    const failure = rejectionOf(receiver.complete());
    peer.write(main, mainStream("setup"));
    peer.write(channel, new Uint8Array(Buffer.concat([handshake(0), syncPacket(), ...bytes])));
    return await failure;
  };
  const broken = { change: (view: DataView) => view.setUint32(0, 7) };
  for (let round = 0; round < 3; round++) {
    expect(await hostile([packet(broken)])).toBeInstanceOf(Error);
    expect(await hostile([packet({ payload: new Uint8Array(50) })])).toBeInstanceOf(Error);
    const abort = new AbortController();
    const waiting = await listen({ endpoint: "127.0.0.1:0", signal: abort.signal });
    abort.abort();
    expect(await rejectionOf(waiting.complete())).toMatchObject({ code: "ERR_MULTIFD_CANCELLED" });
    await waiting[Symbol.asyncDispose]();
    const refused = connect({ endpoint: "127.0.0.1:1", blocks: [block], timeouts: testTimeouts });
    expect(await rejectionOf(refused)).toBeInstanceOf(Error);
    await expectTransfer({ compression: "zstd" });
    await expectTransfer();
  }
  expect(workers()).toBeLessThanOrEqual(8);
  const { sockets } = resourcesNow();
  expect(sockets).toBe(none.sockets);
});

test("a thread that has run somebody's own code has no other job", async () => {
  const module = new URL("./pool_tasks.ts", import.meta.url).href;
  {
    await using pool = new ThreadPool();
    pool.submit({ module, name: "count", data: new Int32Array(new SharedArrayBuffer(16)) });
    await pool.settled();
    expect(pool.errors).toEqual([]);
  }
  await until("it has ended", () => workers() === 0);
});

test("a thread that is ended in the middle of a job is never had again", async () => {
  const control = new SessionControl();
  const thread = takeThread("entry", "pool");
  const job = thread.run({ role: "no such role" }, control);
  await new Promise<void>((ended) => {
    job.onExit(ended);
    job.ref();
  });
  expect(control.error?.message).toContain("no such role");
  await until("it has ended", () => workers() === 0);
  const second = takeThread("entry", "pool");
  second.run({ role: "get-ready" }, new SessionControl());
  second.terminate();
  expect(takeThread("entry", "pool")).not.toBe(second);
  await releaseThreads();
});

test(
  "a process with idle and prepared threads ends by itself",
  async () => {
    const program = `
      import { prepare, listen } from ${JSON.stringify(join(repositoryRoot, "mod.ts"))};
      await prepare({ channels: 2 });
      await using receiver = await listen({ endpoint: "127.0.0.1:0" });
      console.log("done");`;
    const { status, killed, stdout } = await runCommand([bun, "-e", program]);
    expect({ status, killed, stdout }).toEqual({ status: 0, killed: false, stdout: "done\n" });
  },
  LimitMs.fixture,
);

/** What CI asks for; in a hurry some hundred show a leak as well. */
const SESSIONS = process.env["MULTIFD_QEMU_MATRIX"] === undefined ? 150 : 1000;

test(`${SESSIONS} sessions in one process leave no descriptor, thread or MiB more than ten`, async () => {
  const result = (await fixtureResult("many_sessions", [String(SESSIONS)], {
    timeoutMs: 110_000,
    env: { MALLOC_ARENA_MAX: "1" },
  })) as { tenth: Resources; last: Resources; tenthMib: number; lastMib: number };
  expect(result.last).toEqual(result.tenth);
  expect(result.lastMib - result.tenthMib).toBeLessThan(40);
}, 120_000);
