/**
 * Faults of other processes, served over a socket. The other side is a program that does with its
 * memory what Firecracker does.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { copyFileSync, existsSync, statSync, truncateSync } from "node:fs";
import { PageBitmap } from "../lib/memory/page_bitmap.ts";
import { rangesOf } from "../lib/paging/region_message.ts";
import {
  capabilities,
  compressSnapshot,
  createSnapshot,
  openSnapshot,
  RamBlock,
  Recording,
  servePageFaults,
  writeRecording,
  type FaultClientEnd,
  type FaultClientFacts,
  type PagedImage,
  type PageFaultServer,
} from "../mod.ts";
import { thrownBy } from "./kit/errors.ts";
import { ExampleProgram, runExample } from "./kit/example_program.ts";
import { LimitMs } from "./kit/limits.ts";
import { expectReleased, settledResources } from "./kit/resources.ts";
import { Program, runCommand } from "./kit/subprocess.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

const MIB = 1 << 20;
const PAGE = 4096;
/** More pages than the faults that are to be served, with what comes along, by far. */
const RAM_BYTES = 192 * MIB;

const { pageFaults } = capabilities();
const canServe = pageFaults.systemCalls && Bun.which("gcc") !== null;
const faultTest = test.skipIf(!canServe);

const folder = new TemporaryFolder();
const monitor = folder.file("monitor");
const image = folder.file("image");
const kinds = ["snap", "zst", "rec"] as const;
const pathOf = (kind: (typeof kinds)[number]): string => folder.file(`guest.${kind}`);

beforeAll(async () => {
  if (!canServe) return;
  const gcc = ["gcc", "-O1", "-pthread", "-o", monitor, "test/fixtures/monitor.c"];
  expect(await runCommand(gcc, { timeoutMs: LimitMs.program })).toMatchObject({ status: 0 });
  const blocks = [
    RamBlock.allocate("pc.ram", RAM_BYTES),
    RamBlock.allocate("empty", MIB),
    RamBlock.allocate("vga.vram", 2 * MIB + 3 * PAGE),
  ];
  for (const [index, block] of blocks.entries()) {
    if (block.idstr === "empty") continue;
    for (let page = 0; page < block.pages; page++) {
      const isZero = page % 7 === 3 || (page >> 8) % 5 === 2;
      if (isZero && page !== block.pages - 1) continue;
      const view = block.view(page * PAGE, PAGE);
      new Uint32Array(view.buffer, view.byteOffset, 64).fill(page * 3 + index + 1);
    }
  }
  await using writer = await createSnapshot({ path: pathOf("snap"), blocks, sync: false });
  await writer.write();
  await writer.complete();
  using file = await openSnapshot(pathOf("snap"));
  await compressSnapshot(file, pathOf("zst"), { level: 1 });
  const { statistics } = await file.load({ blocks });
  const state = {
    machine: "none",
    uuid: new Uint8Array(16),
    validateUuid: false,
    ramSectionId: 1,
    early: new Uint8Array(),
    switchoverStart: false,
    devices: Uint8Array.of(0),
  };
  await writeRecording(pathOf("rec"), { blocks, compression: "none", statistics, state });
  const sink = Bun.file(image).writer();
  for (const block of blocks) for (const view of block.views(MIB)) void sink.write(view.slice());
  await sink.end();
}, LimitMs.fixture);

afterAll(() => folder[Symbol.dispose]());

interface Ended extends FaultClientFacts {
  readonly end: FaultClientEnd;
  readonly reason: string | undefined;
}

/** A server, and what it tells. */
class Served implements AsyncDisposable {
  readonly ends: Ended[] = [];
  readonly lost: string[] = [];
  readonly #snapshot: PagedImage & Disposable;
  #server: PageFaultServer | undefined;
  #looks: (() => void)[] = [];

  private constructor(snapshot: PagedImage & Disposable) {
    this.#snapshot = snapshot;
  }

  static async open(path: string, socket: string, fill = false): Promise<Served> {
    const snapshot = path.endsWith(".rec") ? await Recording.open(path) : await openSnapshot(path);
    const served = new Served(snapshot);
    served.#server = await servePageFaults({
      path: socket,
      snapshot,
      fill,
      onLost: (_, reason) => served.lost.push(reason),
      onEnded(facts, end, reason) {
        served.ends.push({ ...facts, end, reason });
        for (const look of served.#looks) look();
      },
    });
    return served;
  }

  get server(): PageFaultServer {
    return this.#server!;
  }

  /** Waits until so many processes have ended. */
  async ended(count: number): Promise<readonly Ended[]> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = (): void => (this.ends.length >= count ? resolve() : undefined);
    this.#looks.push(look);
    look();
    const message = `${this.ends.length} of ${count} processes have ended`;
    const timer = setTimeout(() => reject(new Error(message)), LimitMs.condition);
    await promise;
    clearTimeout(timer);
    return this.ends;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.[Symbol.asyncDispose]();
    this.#snapshot[Symbol.dispose]();
  }
}

const run = (socket: string, way: string, content = image): Program =>
  new Program([monitor, socket, content, way, String(PAGE)], { timeoutMs: LimitMs.program });

const resultOf = (stdout: string): Readonly<Record<string, number | string>> =>
  JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as Record<string, number>;

for (const kind of kinds) {
  for (const fill of [false, true]) {
    faultTest(
      `page server: two monitors get every page of a ${kind} file right, and zeros for what they have given back${fill ? ", with the rest behind it" : ""}`,
      async () => {
        await using served = await Served.open(pathOf(kind), folder.file("uffd.sock"), fill);
        const { path } = served.server;
        await using one = run(path, "work");
        await using two = run(path, "work");
        for (const end of await Promise.all([one.end(), two.end()])) {
          expect(end).toMatchObject({ status: 0, stderr: "" });
          expect(resultOf(end.stdout)).toMatchObject({ wrong: 0, kept: 0 });
          expect(resultOf(end.stdout)["removed"]).toBeGreaterThan(2000);
        }
        const ends = await served.ended(2);
        expect(served.lost).toEqual([]);
        for (const { end, reason, faults } of ends) {
          expect(reason).toBeUndefined();
          if (!fill) expect(end).toBe("gone");
          expect(faults).toBeGreaterThan(fill ? 0 : 4000);
        }
      },
    );
  }
}

faultTest(
  "page server: a monitor that is killed is noticed, and the next one is served",
  async () => {
    await using served = await Served.open(pathOf("snap"), folder.file("uffd.sock"));
    for (let round = 1; round <= 3; round++) {
      await using program = run(served.server.path, "wait");
      expect(await program.firstLine()).toBe("ready 1");
      program.kill("SIGKILL");
      const ends = await served.ended(round);
      expect(ends.at(-1)).toMatchObject({ end: "gone", pid: program.pid, reason: undefined });
    }
  },
);

faultTest(
  "page server: where the server is disposed of, a monitor sees it and never reads zeros",
  async () => {
    const served = await Served.open(pathOf("snap"), folder.file("uffd.sock"));
    await using program = run(served.server.path, "wait");
    expect(await program.firstLine()).toBe("ready 1");
    await served[Symbol.asyncDispose]();
    const { status, stdout, killed } = await program.end();
    expect(killed).toBeFalse();
    expect(stdout).toBe("ready 1\n");
    expect(status).not.toBe(0); // SIGBUS
    expect(served.ends).toMatchObject([{ end: "stopped" }]);
    expect(existsSync(served.server.path)).toBeFalse();
  },
);

faultTest(
  "page server: a monitor ends where the server is disposed of while pages are given back",
  async () => {
    for (let round = 0; round < 6; round++) {
      const server = await Served.open(pathOf("zst"), folder.file("uffd.sock"));
      await using program = run(server.server.path, "work");
      await Bun.sleep(40 + 30 * round);
      await server[Symbol.asyncDispose]();
      const { killed, stdout } = await program.end();
      expect(killed).toBeFalse();
      if (stdout !== "") expect(resultOf(stdout)).toMatchObject({ wrong: 0, kept: 0 });
    }
  },
);

faultTest(
  "page server: complete() gives those that are there all pages, and lets them go",
  async () => {
    await using served = await Served.open(pathOf("zst"), folder.file("uffd.sock"));
    await using program = run(served.server.path, "wait");
    expect(await program.firstLine()).toBe("ready 1");
    await served.server.complete();
    const { status, stdout } = await program.end();
    const last = (((2 * MIB + 3 * PAGE) / PAGE - 1) * 3 + 2 + 1) & 255;
    expect([status, resultOf(stdout)]).toEqual([0, { second: last }]);
    expect(served.ends).toMatchObject([{ end: "complete", reason: undefined }]);
  },
);

faultTest(
  "page server: a page that cannot be had is told, and whoever touches it ends",
  async () => {
    const copy = folder.file("cut.snap");
    copyFileSync(pathOf("snap"), copy);
    await using served = await Served.open(copy, folder.file("uffd.sock"));
    truncateSync(copy, statSync(copy).size - 16 * MIB);
    await using program = run(served.server.path, "work");
    const { status, killed, stdout } = await program.end();
    expect([killed, stdout]).toEqual([false, ""]);
    expect(status).not.toBe(0);
    expect((await served.ended(1))[0]).toMatchObject({ end: "gone" });
    expect(served.lost[0]).toContain("ERR_MULTIFD_STREAM_TRUNCATED");
  },
);

for (const [way, reason] of [
  ["file", "is no userfaultfd"],
  ["bare", "must have had its handshake"],
] as const) {
  faultTest(
    `page server: a monitor that passes another descriptor (${way}) is refused with the reason`,
    async () => {
      await using served = await Served.open(pathOf("snap"), folder.file("uffd.sock"));
      await using program = run(served.server.path, way);
      expect(resultOf((await program.end()).stdout)).toEqual({ refused: 1 });
      const [ended] = await served.ended(1);
      expect(ended).toMatchObject({ end: "failed" });
      expect(ended?.reason).toContain(reason);
    },
  );
}

/** A snapshot whose pages are larger than the kernel's, and what it holds. */
async function largePages(): Promise<{ readonly path: string; readonly content: string }> {
  const block = RamBlock.allocate("pc.ram", 24 * MIB, { pageSize: 65_536 });
  for (let page = 0; page < block.bytes / PAGE; page++) {
    if ((page >> 4) % 5 !== 3) block.view(page * PAGE, PAGE).fill(1 + (page % 250));
  }
  const [path, content] = [folder.file("large.snap"), folder.file("large.image")];
  await using writer = await createSnapshot({ path, blocks: [block], sync: false });
  await writer.write();
  await writer.complete();
  await Bun.write(content, block.view(0, block.bytes));
  return { path, content };
}

for (const fill of [false, true]) {
  faultTest(
    `page server: a monitor gives back parts of the pages of a snapshot, and has all the rest${fill ? ", with the rest behind it" : ""}`,
    async () => {
      const { path, content } = await largePages();
      await using served = await Served.open(path, folder.file("uffd.sock"), fill);
      await using program = run(served.server.path, "part", content);
      const { status, stdout } = await program.end();
      expect(status).toBe(0);
      expect(resultOf(stdout)).toEqual({ wrong: 0, removed: 1248, kept: 0 });
      expect(served.lost).toEqual([]);
    },
  );
}

faultTest("page server: a monitor whose memory takes no pages is refused at once", async () => {
  const { path, content } = await largePages();
  await using served = await Served.open(path, folder.file("uffd.sock"));
  await using program = run(served.server.path, "short", content);
  expect(resultOf((await program.end()).stdout)).toEqual({ right: 1, refused: 1 });
  const [ended] = await served.ended(1);
  expect(ended).toMatchObject({ end: "failed", pid: program.pid });
  expect(ended?.reason).toContain("Cannot place pages of RAM block pc.ram: EFAULT");
});

for (const [way, reason] of [
  ["block", "must stay O_NONBLOCK"],
  ["fork", "the process has forked"],
  ["protect", "must be of pages that are absent"],
] as const) {
  faultTest(
    `page server: a monitor that turns on the server (${way}) is refused, and the others go on`,
    async () => {
      await using served = await Served.open(pathOf("snap"), folder.file("uffd.sock"));
      await using good = run(served.server.path, "wait");
      expect(await good.firstLine()).toBe("ready 1");
      const before = await settledResources();
      await using program = run(served.server.path, way);
      expect(resultOf((await program.end()).stdout)).toEqual({ right: 1, refused: 1 });
      const [ended] = await served.ended(1);
      expect(ended).toMatchObject({ end: "failed", pid: program.pid });
      expect(ended?.reason).toContain(reason);
      await expectReleased(before);
      await using next = run(served.server.path, "wait");
      expect(await next.firstLine()).toBe("ready 1");
    },
  );
}

faultTest("page server: what is no message is refused, and nothing is left of it", async () => {
  await using served = await Served.open(pathOf("snap"), folder.file("uffd.sock"));
  const before = await settledResources();
  const messages = ["[]", '{"a":1}', "x".repeat(70_000), "", '[{"size":1}]', "null"];
  for (const [index, message] of messages.entries()) {
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    const socket = await Bun.connect({
      unix: served.server.path,
      socket: { data() {}, close: () => resolve(), error: () => resolve() },
    });
    socket.write(message);
    if (message === "") socket.end();
    await closed;
    expect((await served.ended(index + 1)).at(-1)?.end).toBe("failed");
  }
  const reasons = served.ends.map(({ reason }) => reason ?? "");
  expect(reasons[0]).toContain("no descriptor came along");
  expect(reasons[2]).toMatch(/more than 65536 bytes|no descriptor/);
  expect(reasons[3]).toContain("ended before the message did");
  await expectReleased(before);
});

test("page server: regions that cannot be served are refused", () => {
  const pages = 1024;
  const bits = (): SharedArrayBuffer => new PageBitmap(pages).buffer;
  const blocks = [
    { idstr: "a", bytes: pages * PAGE, pageSize: PAGE, present: bits() },
    { idstr: "b", bytes: pages * PAGE, pageSize: PAGE, present: bits() },
  ];
  const region = (change: object): object => ({
    base_host_virt_addr: 0x7000_0000,
    size: 2 * PAGE,
    offset: 0,
    ...change,
  });
  const ranges = rangesOf([region({ offset: (pages - 1) * PAGE })], blocks);
  expect(ranges.map(({ idstr, bytes, blockOffset }) => [idstr, bytes, blockOffset])).toEqual([
    ["a", PAGE, (pages - 1) * PAGE],
    ["b", PAGE, 0],
  ]);
  for (const sized of [{ page_size: 4096 }, { page_size_kib: 4 }, { page_size_kib: 4096 }, {}]) {
    expect(rangesOf([region(sized)], blocks)[0]?.unitBytes).toBe(PAGE);
  }
  const huge = region({ page_size: 2 * MIB, size: 4 * MIB, base_host_virt_addr: 0x4000_0000 });
  expect(rangesOf([huge], blocks).map(({ unitBytes }) => unitBytes)).toEqual([2 * MIB]);
  const wrong: unknown[] = [
    7,
    [],
    [null],
    [[]],
    [region({ size: 0 })],
    [region({ size: -4096 })],
    [region({ size: 1.5 })],
    [region({ size: "4096" })],
    [region({ size: 2 ** 60 })],
    [region({ base_host_virt_addr: 0 })],
    [region({ base_host_virt_addr: 4097 })],
    [region({ base_host_virt_addr: 0x1_0000 })],
    [region({ base_host_virt_addr: 0x1_f000 })],
    [region({ base_host_virt_addr: 2 ** 56 })],
    [region({ offset: 2 * pages * PAGE })],
    [region({ offset: (2 * pages - 1) * PAGE })],
    [region({ offset: 100 })],
    [region({ page_size: 3000 })],
    [region({ page_size: 12_288 })],
    [region({ page_size: 2 ** 30 })],
    [region({ page_size: 8192, offset: PAGE })],
    [region({}), region({ base_host_virt_addr: 0x7000_1000 })],
    Array.from({ length: 257 }, (_, index) =>
      region({ base_host_virt_addr: (index + 1) * 0x10_0000 }),
    ),
  ];
  for (const json of wrong) {
    expect(thrownBy(() => rangesOf(json, blocks))).toMatchObject({
      code: "ERR_MULTIFD_STREAM_REGIONS",
    });
  }
});

faultTest("page server: nothing is left of servers and processes that come and go", async () => {
  const socket = folder.file("uffd.sock");
  await (await Served.open(pathOf("zst"), socket))[Symbol.asyncDispose]();
  const before = await settledResources();
  for (let round = 0; round < 5; round++) {
    await using served = await Served.open(pathOf("zst"), socket);
    await using program = run(socket, "wait");
    expect(await program.firstLine()).toBe("ready 1");
    if (round % 2 === 0) program.kill("SIGKILL");
    if (round % 2 === 0) await served.ended(1);
  }
  await expectReleased(before);
});

for (const [signal, second] of [
  ["SIGTERM", undefined],
  ["SIGKILL", { second: "waits" }],
] as const) {
  faultTest(
    `page server: a monitor notices that examples/page_server.ts has ended by ${signal}, and reads no zeros`,
    async () => {
      const socket = folder.file("example.sock");
      await using server = new ExampleProgram("page_server", [
        "--snapshot",
        pathOf("snap"),
        "--socket",
        socket,
        "--json",
      ]);
      expect(JSON.parse(await server.firstLine())).toEqual({ event: "listening" });
      await using program = run(socket, "wait");
      expect(await program.firstLine()).toBe("ready 1");
      server.kill(signal);
      const { status, stdout, killed } = await program.end();
      expect(killed).toBeFalse();
      if (second === undefined) expect([status === 0, stdout]).toEqual([false, "ready 1\n"]);
      else expect([status, resultOf(stdout)]).toEqual([0, second]);
    },
  );
}

faultTest(
  "page server: examples/page_server.ts serves one process of a recording, and says so",
  async () => {
    const socket = folder.file("example.sock");
    const args = ["--snapshot", pathOf("rec"), "--socket", socket, "--once"];
    await using server = new ExampleProgram("page_server", args);
    expect(await server.firstLine()).toBe(`listening ${socket}`);
    await using program = run(socket, "work");
    expect(resultOf((await program.end()).stdout)).toMatchObject({ wrong: 0, kept: 0 });
    const { status, stdout, stderr } = await server.end();
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/process \d+ gone: \d+ faults/);
  },
);

test("page server: examples/page_server.ts refuses wrong arguments", async () => {
  expect(await runExample("page_server", ["--socket", "x"])).toMatchObject({ status: 2 });
  expect(await runExample("page_server", ["--help"])).toMatchObject({ status: 0 });
});
