/**
 * QEMU's own mapped-ram files read here, and files written here restored by QEMU; the paths are
 * those of QEMU's test suite.
 */
import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import {
  createSnapshot,
  openSnapshot,
  record,
  Recording,
  restore,
  writeRecording,
  type CreateSnapshotOptions,
  type Snapshot,
} from "../../mod.ts";
import { indexOf } from "../kit/snapshot_index.ts";
import { saveSnapshot } from "../kit/snapshots.ts";
import { hasDirectIo, TemporaryFolder } from "../kit/temporary_folder.ts";
import { endpointOf, GuestTest, uriOf } from "./guest_migration.ts";
import { Qemu } from "./qemu.ts";
import { qemuTest } from "./qemu_case.ts";
import {
  assembleTinyGuest,
  checkCounters,
  checkSerialGoesOn,
  COUNTER_START,
  type TinyGuest,
} from "./tiny_guest.ts";

const MIB = 1 << 20;
const MEMORY_MIB = 64;
const COUNTED_BYTES = MEMORY_MIB * MIB - COUNTER_START;
const MARKER = 0xa5;

interface SaveCase {
  /** 0: without multifd. */
  readonly channels: number;
  readonly live?: boolean;
  readonly directIo?: boolean;
  readonly offset?: number;
  readonly extraArgs?: readonly string[];
}

/** Lets QEMU save a running or stopped guest; returns what the guest had printed. */
async function saveWithQemu(guest: TinyGuest, path: string, save: SaveCase): Promise<string> {
  const { channels, live = false, directIo = false, offset = 0, extraArgs } = save;
  if (offset > 0) writeFileSync(path, new Uint8Array(offset).fill(MARKER));
  const machine = { name: "source", memoryMib: MEMORY_MIB, bios: guest.path };
  await using vm = await Qemu.start({ ...machine, extraArgs });
  await configureFile(vm, channels, directIo);
  await vm.waitSerial(/00000002\n/, 10_000);
  if (!live) await vm.stop();
  await vm.migrate(offset > 0 ? `file:${path},offset=${offset}` : `file:${path}`);
  await vm.waitMigration(20_000);
  if (live) expect((await vm.queryMigrate()).ram?.dirtySyncCount).toBeGreaterThan(1);
  return await vm.serialOutput();
}

async function configureFile(vm: Qemu, channels: number, directIo: boolean): Promise<void> {
  await vm.setCapabilities({ "mapped-ram": true, multifd: channels > 0 });
  // A busy disk takes less than the guest writes: no limit that it would have to meet.
  await vm.setParameters({ "max-bandwidth": 2 ** 40, "downtime-limit": 60_000 });
  await vm.setParameters({ "direct-io": directIo });
  if (channels > 0) await vm.setParameters({ "multifd-channels": channels });
}

/** The guest's memory as the file gives it, by channels and page by page. */
async function memoryOf(file: Snapshot, channels: number): Promise<Uint8Array> {
  const { blocks } = await file.load({ channels });
  expect(blocks[0]?.idstr).toBe("pc.ram");
  const loaded = Buffer.concat([...(blocks[0]?.views() ?? [])]);
  const ranged = new Uint8Array(loaded.byteLength);
  file.readRange("pc.ram", 0, ranged);
  expect(Buffer.compare(loaded, ranged)).toBe(0);
  return loaded;
}

/** Restores a file with QEMU and checks that the guest goes on after `serial` with whole memory. */
async function restoreWithQemu(
  guest: TinyGuest,
  uri: string,
  serial: string,
  channels: number,
  directIo = false,
  extraArgs?: readonly string[],
): Promise<Uint8Array> {
  using folder = new TemporaryFolder("/dev/shm");
  const ramFile = folder.file("pc.ram");
  const options = { name: "target", memoryMib: MEMORY_MIB, bios: guest.path, ramFile, extraArgs };
  await using vm = await Qemu.start({ ...options, paused: true, incoming: "defer" });
  await configureFile(vm, channels, directIo);
  await vm.migrateIncoming(uri);
  await vm.waitMigration(20_000);
  const memory = readFileSync(ramFile);
  checkCounters(memory.subarray(COUNTER_START), COUNTER_START, MEMORY_MIB * MIB);
  await vm.cont();
  const goesOn = await vm.waitSerial(/([0-9a-f]{8}\n){2}/, 20_000);
  expect(checkSerialGoesOn(serial, goesOn)).toBeGreaterThan(1);
  await vm.stop();
  const after = await vm.readPhysicalMemory(COUNTER_START, COUNTED_BYTES);
  checkCounters(after, COUNTER_START, MEMORY_MIB * MIB);
  return memory;
}

const READ_CASES: [string, SaveCase][] = [
  ["precopy/file/mapped-ram", { channels: 0 }],
  ["precopy/file/mapped-ram/live", { channels: 0, live: true }],
  ["multifd/file/mapped-ram", { channels: 3 }],
  ["multifd/file/mapped-ram/live", { channels: 4, live: true }],
  ["multifd/file/mapped-ram/dio", { channels: 2, directIo: true }],
  ["multifd/file/mapped-ram/live/dio", { channels: 4, live: true, directIo: true }],
  ["multifd/file/mapped-ram/offset", { channels: 2, offset: 0x1000 }],
];

for (const [path, save] of READ_CASES) {
  if (save.directIo === true && !hasDirectIo()) {
    // Some file systems refuse O_DIRECT, and QEMU then refuses to save at all.
    test.skip(`qemu/${path} (needs O_DIRECT in the folder for temporary files)`, () => {});
    continue;
  }
  qemuTest(`qemu/${path} is read equal to what QEMU restores`, async () => {
    using folder = new TemporaryFolder();
    await using guest = await assembleTinyGuest({ noiseBytes: 3 * MIB, textBytes: 3 * MIB });
    const snap = folder.file("guest.snap");
    const serial = await saveWithQemu(guest, snap, save);
    const { offset = 0 } = save;
    using file = await openSnapshot(snap, { offset });
    const memory = await memoryOf(file, save.channels + 1);
    const start = file.block("pc.ram");
    expect(start.bytes).toBe(MEMORY_MIB * MIB);
    checkCounters(memory.subarray(COUNTER_START), COUNTER_START, MEMORY_MIB * MIB);
    const uri = offset > 0 ? `file:${snap},offset=${offset}` : `file:${snap}`;
    const restored = await restoreWithQemu(guest, uri, serial, 2);
    expect(Buffer.compare(memory, restored)).toBe(0);
    if (offset > 0) {
      expect(
        readFileSync(snap)
          .subarray(0, offset)
          .every((byte) => byte === MARKER),
      ).toBe(true);
    }
  });
}

/**
 * Checks that two files of the same guest differ in nothing but the number of empty RAM sections,
 * which says how long saving took.
 */
function expectSameFile(original: string, copy: string): void {
  const ends = [original, copy].map((path) => {
    const index = indexOf(path);
    const last = index.blocks.at(-1)!;
    return { bytes: readFileSync(path), ramEnd: last.pagesOffset + last.bytes, index };
  });
  const [ours, theirs] = [ends[1]!, ends[0]!];
  const setupEnd = theirs.ramEnd + 8 + 5; // end record and footer of the setup section
  expect(ours.ramEnd).toBe(theirs.ramEnd);
  expect(ours.bytes.subarray(0, setupEnd).equals(theirs.bytes.subarray(0, setupEnd))).toBe(true);
  const finalBytes = 5 + 5 + 8 + 5; // command, then header, end record and footer of the section
  const tails = [ours, theirs].map(({ bytes, index }) =>
    bytes.subarray(index.deviceStateOffset - finalBytes),
  );
  expect(tails[0]!.equals(tails[1]!)).toBe(true);
}

type WriteOptions = Partial<CreateSnapshotOptions> & {
  readonly readers: number;
  readonly readDirect?: boolean;
};

const WRITE_CASES: [string, WriteOptions][] = [
  ["1-to-4", { channels: 1, readers: 4 }],
  ["4-to-1", { channels: 4, readers: 1 }],
  ["3-to-0", { channels: 3, readers: 0 }],
  ["2-to-3/dio", { channels: 2, readers: 3, directIo: true, readDirect: true }],
  ["2-to-2/none", { channels: 2, readers: 2, zeroPageDetection: "none" }],
  ["2-to-2/offset", { channels: 2, readers: 2, offset: 5 * MIB + 12 }],
];

qemuTest(
  "multifd/file/mapped-ram files written here are restored by QEMU, and the guest goes on",
  async () => {
    using folder = new TemporaryFolder();
    await using guest = await assembleTinyGuest({ noiseBytes: 3 * MIB, textBytes: 3 * MIB });
    const original = folder.file("original.snap");
    const serial = await saveWithQemu(guest, original, { channels: 2 });
    using source = await openSnapshot(original);
    const { blocks } = await source.load();
    for (const [name, { readers, readDirect, ...options }] of WRITE_CASES) {
      const path = folder.file(`${name.replaceAll("/", "-")}.snap`);
      const { offset = 0 } = options;
      if (offset > 0) writeFileSync(path, new Uint8Array(offset).fill(MARKER));
      const guestState = source.guestState();
      await saveSnapshot({ ...options, path, blocks, guestState });
      const comparable = offset === 0 && options.zeroPageDetection === undefined;
      if (comparable) expectSameFile(original, path);
      const uri = offset > 0 ? `file:${path},offset=${offset}` : `file:${path}`;
      const restored = await restoreWithQemu(
        guest,
        uri,
        serial,
        readers,
        readDirect && hasDirectIo(),
      );
      expect(Buffer.compare(restored, Buffer.concat([...(blocks[0]?.views() ?? [])]))).toBe(0);
    }
  },
  60_000,
);

qemuTest(
  "multifd/file/mapped-ram restores a guest whose memory was changed between the files",
  async () => {
    using folder = new TemporaryFolder();
    await using guest = await assembleTinyGuest({ noiseBytes: 3 * MIB });
    const original = folder.file("original.snap");
    const changed = folder.file("changed.snap");
    const serial = await saveWithQemu(guest, original, { channels: 2 });
    using source = await openSnapshot(original);
    const { blocks } = await source.load();
    const guestState = source.guestState();
    const ram = blocks[0]!;
    await using writer = await createSnapshot({ path: changed, blocks, guestState });
    await writer.write();
    // A page of noise becomes zero and a zero page below 1 MiB gets content, in a second round.
    ram.view(COUNTER_START + MIB, 4096).fill(0, 1); // byte 0 is the page's counter
    ram.view(0x80_0000, 4096).fill(0x5a);
    await writer.writeRange(ram, (COUNTER_START + MIB) / 4096, (COUNTER_START + MIB) / 4096 + 1);
    await writer.writeRange(ram, 0x80_0000 / 4096, 0x80_0000 / 4096 + 1);
    await writer.complete();
    const restored = await restoreWithQemu(guest, `file:${changed}`, serial, 3);
    expect(Buffer.compare(restored, Buffer.concat([...ram.views()]))).toBe(0);
  },
);

qemuTest(
  "multifd/file/mapped-ram made from a recording is restored by QEMU, and a recording from a file",
  async () => {
    await using guest = await GuestTest.create();
    const side = { channels: 2, compression: "zstd" } as const;
    await using source = await guest.startSource(side);
    {
      const [endpoint, output] = ["127.0.0.1:0", guest.path("vm.rec")];
      await using recorder = await record({ endpoint, ...side, output });
      await source.migrate(uriOf(recorder.endpoint));
      await recorder.complete();
    }
    await source.waitMigration(20_000);
    using recording = await Recording.open(guest.path("vm.rec"));
    const path = guest.path("vm.snap");
    const { blocks, state: guestState } = recording;
    await saveSnapshot({ path, blocks, guestState, channels: 3 });
    {
      await using target = await guest.startTarget({ channels: 4, compression: "none" });
      await target.setCapabilities({ "return-path": false });
      await configureFile(target, 4, false);
      await target.migrateIncoming(`file:${path}`);
      await target.waitMigration(20_000);
      await guest.expectGoesOn(source, target);
    }

    // And back: the file as a recording, sent over sockets.
    using file = await openSnapshot(path);
    const loaded = await file.load();
    const content = { ...loaded, state: file.guestState(), compression: "none" };
    const input = guest.path("again.rec");
    await writeRecording(input, content);
    await using target = await guest.startTarget(side);
    const endpoint = endpointOf(await target.migrateIncoming("tcp:127.0.0.1:0"));
    await using restorer = await restore({ input, endpoint, ...side });
    await restorer.complete();
    await target.waitMigration(20_000);
    await guest.expectGoesOn(source, target);
  },
  60_000,
);

qemuTest(
  "multifd/file/mapped-ram keeps device sections in front of RAM, graphics memory and several blocks",
  async () => {
    using folder = new TemporaryFolder();
    await using guest = await assembleTinyGuest({ noiseBytes: MIB });
    const more = "-object memory-backend-ram,id=more,size=256M -device virtio-mem-pci,memdev=more";
    const extraArgs = `-m ${MEMORY_MIB}M,maxmem=1G ${more},id=vm0 -device VGA`.split(" ");
    const [original, copy] = [folder.file("original.snap"), folder.file("copy.snap")];
    const serial = await saveWithQemu(guest, original, { channels: 2, extraArgs });
    using source = await openSnapshot(original);
    expect(source.index.early.byteLength).toBeGreaterThan(0);
    const names = source.blocks.map(({ idstr }) => idstr);
    expect(names).toContain("pc.ram");
    expect(names.some((idstr) => idstr.endsWith("vga.vram"))).toBe(true);
    const { blocks } = await source.load({ channels: 3 });
    const guestState = source.guestState();
    await saveSnapshot({ path: copy, blocks, guestState });
    await restoreWithQemu(guest, `file:${copy}`, serial, 3, false, extraArgs);
  },
);
