import { expect, test } from "bun:test";
import { linkSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";

import { factsOfDescriptor, factsOfPath } from "../lib/storage/file_facts.ts";
import { openRegularFile } from "../lib/storage/opened_file.ts";
import { outputOf } from "./setup/command.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";

test("factsOfPath() tells what a path leads to, as messages say it", async () => {
  using folder = new TemporaryFolder();
  const file = folder.file("file");
  writeFileSync(file, "memory");
  await outputOf(["mkfifo", folder.file("pipe")]);
  await using server = createServer().listen(folder.file("socket"));
  await new Promise((resolve) => server.once("listening", resolve));

  const kindOf = (path: string): string | undefined => factsOfPath("Cannot look", path)?.kind;
  expect(kindOf(file)).toBe("a regular file");
  expect(kindOf(folder.path)).toBe("a directory");
  expect(kindOf(folder.file("pipe"))).toBe("a pipe");
  expect(kindOf(folder.file("socket"))).toBe("a socket");
  expect(kindOf("/dev/null")).toBe("a character device");
  expect(kindOf(folder.file("nothing"))).toBeUndefined();
  expect(() => factsOfPath("Cannot look", folder.file("file", "x"))).toThrow(
    expect.objectContaining({ errno: "ENOTDIR" }),
  );
});

test("factsOfDescriptor() counts names and bytes on the device as stat() does", () => {
  using folder = new TemporaryFolder();
  const path = folder.file("file");
  writeFileSync(path, new Uint8Array(100_000).fill(1));
  linkSync(path, folder.file("other"));
  using file = openRegularFile("Cannot open", path);
  const { kind, links, diskBytes } = factsOfDescriptor("Cannot look", file.fd);
  expect({ kind, links, diskBytes }).toEqual({
    kind: "a regular file",
    links: 2,
    diskBytes: statSync(path).blocks * 512,
  });
  expect(() => factsOfDescriptor("Cannot look", 0x7fff_ffff)).toThrow(
    expect.objectContaining({ errno: "EBADF" }),
  );
});
