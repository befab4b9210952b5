/** Guests that run before their memory has arrived, in real QEMUs of three ages. */
import { expect } from "bun:test";
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  truncateSync,
} from "node:fs";
import { copyFile } from "node:fs/promises";
import { LIBC } from "../../ffi/libc.ts";
import { openLibrary } from "../../ffi/library.ts";
import { NativeType } from "../../ffi/runtime/runtime.ts";
import { openGuest, openSnapshot, restore, writeRecording } from "../../mod.ts";
import { rejectionOf } from "../kit/errors.ts";
import { CutProxy } from "../kit/cut_proxy.ts";
import { ExampleProgram, runExample } from "../kit/example_program.ts";
import { TemporaryFolder } from "../kit/temporary_folder.ts";
import { pskFolder } from "../kit/tls_folders.ts";
import { LARGE_MACHINE } from "./large_machine.ts";
import { until } from "../kit/threads.ts";
import { InstantGuest, KINDS, recoverAt } from "./instant_guest.ts";
import { qemuTest } from "./qemu_case.ts";
import type { QemuVersion } from "./qemu_versions.ts";

const MIB = 1 << 20;
const LIMIT_MS = 30_000;
const VERSIONS: readonly QemuVersion[] = ["7.2", "10.0", "11.1"];
const LONG = process.env["MULTIFD_QEMU_MATRIX"] !== undefined;
const ROW = LONG ? 200 : 20;
const CUTS = LONG ? 50 : 4;

/** Lets every read of a file fail, for as long as it is open here, until disposed. */
function breakReads(path: string): Disposable {
  const INT = NativeType.i32;
  const libc = openLibrary(LIBC, { dup2: { args: [INT, INT], returns: INT } } as const);
  const open = readdirSync("/proc/self/fd")
    .filter((fd) => linkOf(`/proc/self/fd/${fd}`) === path)
    .map(Number);
  const folder = openSync("/", "r");
  const file = openSync(path, "r");
  for (const fd of open) libc.dup2(folder, fd);
  closeSync(folder);
  let broken = true;
  return {
    [Symbol.dispose]() {
      if (!broken) return;
      broken = false;
      for (const fd of open) libc.dup2(file, fd);
      closeSync(file);
    },
  };
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ""; // closed meanwhile
  }
}

for (const version of VERSIONS) {
  for (const preempt of [false, true]) {
    const how = preempt ? ", requested pages on a connection of their own" : "";
    qemuTest(
      `a guest runs at once in QEMU ${version} from every kind of file${how}`,
      async () => {
        await using guest = await InstantGuest.create();
        for (const [index, kind] of KINDS.entries()) {
          const input = guest.test.path(kind);
          const before = readFileSync(input);
          const paused = (index + (preempt ? 1 : 0)) % 2 === 0;
          const { runningMs } = await guest.expectRestored({ version, preempt, paused }, { input });
          expect(runningMs).toBeGreaterThan(0);
          // The bandwidth of what nobody asks for is limited, so the guest does ask.
          const slow = { input, maxBandwidth: 16 * MIB };
          const { requests, latencyMs } = await guest.expectRestored({ version, preempt }, slow);
          expect(requests).toBeGreaterThan(0);
          expect(latencyMs?.median).toBeGreaterThan(0);
          expect(readFileSync(input).equals(before)).toBe(true);
        }
      },
      undefined,
      ["10.0", version],
    );
  }
}

qemuTest("a pc of the current version runs at once, with its final phase announced", async () => {
  await using guest = await InstantGuest.create("pc");
  await guest.expectRestored({ paused: true }, { input: guest.test.path("snapshot") });
  await guest.expectRestored({ preempt: true }, { input: guest.test.path("compressed") });
});

qemuTest(
  "memory that is shared, and a machine with devices in front of its RAM, run at once",
  async () => {
    {
      await using guest = await InstantGuest.create();
      using folder = new TemporaryFolder("/dev/shm");
      const target = { ramFile: folder.file("pc.ram") };
      const input = guest.test.path("compressed");
      await guest.expectRestored({ ...target, paused: true }, { input });
      await guest.expectRestored(target, { input, maxBandwidth: 16 * MIB });
    }
    await using guest = await InstantGuest.create("q35", LARGE_MACHINE);
    for (const kind of KINDS) {
      await guest.expectRestored({ paused: kind !== "snapshot" }, { input: guest.test.path(kind) });
    }
  },
);

qemuTest("a guest runs at once over encrypted connections", async () => {
  await using guest = await InstantGuest.create();
  const dir = pskFolder(guest.test.folder, "keys");
  const tlsObject = `tls-creds-psk,dir=${dir},endpoint=server`;
  const tls = { kind: "psk", dir } as const;
  const input = guest.test.path("snapshot");
  await guest.expectRestored({ tlsObject, paused: true }, { input, tls });
  await guest.expectRestored({ tlsObject, preempt: true }, { input, tls, maxBandwidth: 16 * MIB });
});

qemuTest(
  `${ROW} guests in a row run at once from one compressed file`,
  async () => {
    await using guest = await InstantGuest.create();
    using input = await openGuest(guest.test.path("compressed"));
    for (let turn = 0; turn < ROW; turn++) {
      const maxBandwidth = turn % 3 === 0 ? 0 : 32 * MIB;
      const { leftPages } = await guest.expectRestored(
        { preempt: turn % 2 === 0 },
        { input, maxBandwidth },
      );
      expect(leftPages).toBe(0);
    }
  },
  20 * 60_000,
);

qemuTest("two guests at once from one compressed file, each frame decompressed once", async () => {
  await using guest = await InstantGuest.create();
  using input = await openGuest(guest.test.path("compressed"));
  await Promise.all([
    guest.expectRestored({}, { input }),
    guest.expectRestored({ preempt: true }, { input, maxBandwidth: 32 * MIB }),
  ]);
  const decompressed = new Int32Array(input.pages.cache!.buffer)[2];
  await guest.expectRestored({}, { input });
  expect(new Int32Array(input.pages.cache!.buffer)[2]).toBe(decompressed);
});

qemuTest("a recorded order leaves the next guest hardly anything to ask for", async () => {
  await using guest = await InstantGuest.create();
  const [input, order] = [guest.test.path("snapshot"), guest.test.path("order")];
  const first = await guest.expectRestored({}, { input, learn: order });
  const again = guest.test.path("again");
  const second = await guest.expectRestored({}, { input, order, learn: again });
  expect(first.requests).toBeGreaterThan(1000);
  expect(second.requests).toBeLessThan(first.requests / 4);
  const info = await runExample("snapshot", ["info", input, "--order", order, "--json"]);
  const { pages } = info.result["order"] as { pages: number };
  expect(pages).toBeGreaterThanOrEqual(first.requestedPages);
});

qemuTest(
  `a connection that is cut ${CUTS} times at random moments is taken up again`,
  async () => {
    await using guest = await InstantGuest.create();
    for (let turn = 0; turn < CUTS; turn++) {
      const preempt = turn % 2 === 1;
      const { vm, endpoint } = await guest.start({ preempt });
      await using target = vm;
      using proxy = new CutProxy(endpoint);
      await using restorer = await restore({
        instant: true,
        input: guest.test.path("compressed"),
        endpoint: proxy.endpoint,
        preempt,
        maxBandwidth: 8 * MIB,
      });
      await restorer.running();
      await Bun.sleep(Math.random() * 1000);
      proxy.cut();
      const error = await rejectionOf(restorer.complete());
      expect(error.message).toMatch(/the guest runs at the destination without \d+ of its pages/);
      await restorer.recover(await recoverAt(target, guest.test.path(`recover.${target.pid}`)));
      expect((await restorer.complete()).leftPages).toBe(0);
      await target.waitMigration(LIMIT_MS);
      await guest.expectGoesOn(target);
    }
  },
  20 * 60_000,
);

for (const version of VERSIONS) {
  qemuTest(
    `a source that is killed is replaced by another one, with QEMU ${version}`,
    async () => {
      await using guest = await InstantGuest.create();
      const { vm, endpoint } = await guest.start({ version });
      await using target = vm;
      const common = ["--instant", "--input", guest.test.path("recording"), "--json"];
      const slow = ["--max-bandwidth", "4M", "--connect", endpoint];
      await using killed = new ExampleProgram("qemu_restore", [...common, ...slow]);
      expect(JSON.parse(await killed.firstLine())).toMatchObject({ running: true });
      await Bun.sleep(300);
      killed.kill("SIGKILL");
      const at = await recoverAt(target, guest.test.path(`recover.${target.pid}`));
      const end = await runExample("qemu_restore", [...common, "--recover", "--connect", at]);
      expect([end.status, end.result["ok"], end.result["leftPages"]]).toEqual([0, true, 0]);
      await target.waitMigration(LIMIT_MS);
      await guest.expectGoesOn(target);
    },
    undefined,
    ["10.0", version],
  );
}

qemuTest("a destination that is killed is told of, with what has become of the guest", async () => {
  await using guest = await InstantGuest.create();
  const input = guest.test.path("snapshot");
  for (const afterMs of [0, 200]) {
    const { vm, endpoint } = await guest.start();
    await using target = vm;
    const options = { instant: true, input, endpoint, maxBandwidth: 4 * MIB } as const;
    await using restorer = await restore(options);
    if (afterMs > 0) await restorer.running();
    await Bun.sleep(afterMs);
    await target.kill();
    const { message } = await rejectionOf(restorer.complete());
    expect(message).toMatch(/the file is as it was/);
  }
  await guest.expectRestored({}, { input });
});

qemuTest("a disk that fails is read again while the guest waits, and then told of", async () => {
  await using guest = await InstantGuest.create();
  const input = guest.test.path("snapshot");
  for (const heals of [true, false]) {
    const { vm, endpoint } = await guest.start();
    await using target = vm;
    const notices: string[] = [];
    const onNotice = (notice: string): void => void notices.push(notice);
    const options = { instant: true, input, endpoint, maxBandwidth: 4 * MIB, onNotice } as const;
    await using restorer = await restore(options);
    await restorer.running();
    using broken = breakReads(input);
    await until("a read has failed", () => notices.length > 0);
    expect(notices[0]).toMatch(/EISDIR: page \d+ of .* is tried again, the guest waits/);
    if (heals) {
      broken[Symbol.dispose]();
      await restorer.complete();
      await target.waitMigration(LIMIT_MS);
      await guest.expectGoesOn(target);
      continue;
    }
    const { errno, message } = await rejectionOf(restorer.complete());
    expect(errno).toBe("EISDIR");
    expect(message).toMatch(/the guest runs at the destination without \d+ of its pages/);
    broken[Symbol.dispose]();
    const at = await recoverAt(target, guest.test.path("recover"));
    await using other = await restore({ instant: true, input, endpoint: at, resume: true });
    await other.complete();
    await target.waitMigration(LIMIT_MS);
    await guest.expectGoesOn(target);
  }
});

qemuTest("what cannot work is refused before the switch, and the guest runs nowhere", async () => {
  await using guest = await InstantGuest.create();
  const snapshot = guest.test.path("snapshot");
  const refused = "the guest has not run at the destination, and the file is as it was";
  for (const machine of ["pc-q35-7.2", "pc"]) {
    // Capability postcopy-preempt on one side only.
    await using other = await InstantGuest.create(machine);
    const input = other.test.path("snapshot");
    const { vm, endpoint } = await other.start({ preempt: false });
    await using target = vm;
    const error = await rejectionOf(restore({ instant: true, input, endpoint, preempt: true }));
    expect(error.message).toContain(refused);
    if (machine !== "pc") expect(error.message).toContain("postcopy-preempt on");
    await target.kill();
  }
  {
    const { vm, endpoint } = await guest.start({ preempt: true });
    await using target = vm;
    const timeouts = { connectMs: 1000 };
    await using restorer = await restore({ instant: true, input: snapshot, endpoint, timeouts });
    // Only when it waits for pages it is known that it waits for a connection as well.
    const error = await rejectionOf(restorer.complete());
    expect(error.message).toContain("postcopy-preempt off");
    await target.kill();
  }
  {
    // Memory of another size.
    const { vm, endpoint } = await guest.start({ memoryMib: 64 });
    await using target = vm;
    const error = await rejectionOf(restore({ instant: true, input: snapshot, endpoint }));
    expect(error.message).toContain(refused);
    expect(error.message).toContain("the same machine, devices and memory");
    await target.kill();
  }
  {
    // Device state that is not whole.
    using file = await openSnapshot(snapshot);
    const loaded = await file.load();
    const state = file.guestState();
    const devices = state.devices.slice(0, state.devices.byteLength >> 1);
    const output = guest.test.path("half.rec");
    const content = { ...loaded, state: { ...state, devices }, compression: "none" };
    await writeRecording(output, content);
    const error = await rejectionOf(
      restore({ instant: true, input: output, endpoint: "127.0.0.1:1" }),
    );
    expect(error.message).toContain("device state in the file has no end");
  }
  const cut = guest.test.path("cut");
  await copyFile(snapshot, cut);
  truncateSync(cut, 30 * MIB);
  const options = { instant: true, input: cut, endpoint: "127.0.0.1:1" } as const;
  expect((await rejectionOf(restore(options))).code).toBe("ERR_MULTIFD_STREAM_TRUNCATED");
});
