import { expect, test } from "bun:test";
import { constants, openSync, readFileSync, writeFileSync } from "node:fs";
import { Arena } from "../ffi/arena.ts";
import { ChannelFile } from "../lib/snapshot/channel_file.ts";
import { FileRound } from "../lib/snapshot/file_round.ts";
import { OpenedFile, openRegularFile } from "../lib/storage/opened_file.ts";
import { thrownBy } from "./kit/errors.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

test("ChannelFile with O_DIRECT goes on buffered after an access that is not aligned", () => {
  using folder = new TemporaryFolder();
  const path = folder.file("file");
  writeFileSync(path, new Uint8Array(16_384));
  using opened = openRegularFile("Cannot open", path, constants.O_RDWR);
  const round = new FileRound();
  const arena = new Arena(16_384);
  arena.u8.fill(7);
  {
    using file = new ChannelFile(opened, "write", true, round);
    const refusedAtOnce = round.directRefused; // by file systems without O_DIRECT
    file.write(arena.address, 4096, 4096);
    expect(round.directRefused).toBe(refusedAtOnce);
    file.write(arena.address + 1, 100, 8193);
    file.write(arena.address, 4096, 12_288);
  }
  const bytes = readFileSync(path);
  const sevens = [...bytes].reduce((sum, byte) => sum + (byte === 7 ? 1 : 0), 0);
  expect([sevens, bytes[8192], bytes[8193], bytes[8292], bytes[8293]]).toEqual([
    4096 + 100 + 4096,
    0,
    7,
    7,
    0,
  ]);
  expect([0, 22]).toContain(round.directRefused); // memory file systems take any alignment
  arena.u8.fill(0);
  using file = new ChannelFile(opened, "read", true, new FileRound());
  file.read(arena.address + 3, 100, 8193);
  expect([arena.u8[2], arena.u8[3], arena.u8[102], arena.u8[103]]).toEqual([0, 7, 7, 0]);
});

test("ChannelFile reports files that end early", () => {
  using folder = new TemporaryFolder();
  const path = folder.file("file");
  writeFileSync(path, new Uint8Array(5000));
  using opened = openRegularFile("Cannot open", path);
  const arena = new Arena(8192);
  for (const direct of [false, true]) {
    using file = new ChannelFile(opened, "read", direct, new FileRound());
    const short = thrownBy(() => file.read(arena.address, 4096, 4096));
    expect(short.code).toBe("ERR_MULTIFD_STREAM_TRUNCATED");
  }
});

test("ChannelFile.write() reports a full device", () => {
  using device = new OpenedFile("/dev/full", openSync("/dev/full", "w"));
  using file = new ChannelFile(device, "write", false, new FileRound());
  const arena = new Arena(4096);
  const full = thrownBy(() => file.write(arena.address, 4096, 0));
  expect(full).toMatchObject({ code: "ERR_MULTIFD_SYSTEM", errno: "ENOSPC" });
});
