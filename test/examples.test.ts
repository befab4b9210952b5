import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { mkdir, open, readdir, stat, truncate } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { capabilities, COMPRESSION_METHODS } from "../mod.ts";
import {
  ExampleProgram,
  filesEqual,
  makeImage,
  runExample,
  transfer,
} from "./kit/example_program.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { untilConnected } from "./kit/tcp_connections.ts";
import { outputOf, repositoryRoot } from "./setup/command.ts";

const MIB = 1 << 20;

/** Of a sender without `--channels`: the main connection and two channels. */
const CONNECTIONS = 3;

const words = (text: string): string[] => text.split(" ");

function startReceiver(output: string, endpoint = "127.0.0.1:0"): ExampleProgram {
  return new ExampleProgram("receiver", ["--listen", endpoint, "--output", output, "--json"]);
}

/** A transfer that lasts long enough to be disturbed: 16 MiB at 1 MiB/s. */
async function slowImage(directory: TemporaryFolder): Promise<string[]> {
  const path = directory.file("slow.ram");
  await Bun.write(path, crypto.getRandomValues(Buffer.alloc(65_536)));
  await truncate(path, 16 * MIB);
  return ["--block", `slow=${path}`, "--max-bandwidth", "1M", "--zero-page-detection", "none"];
}

for (const method of COMPRESSION_METHODS) {
  test(`examples/${method}: several blocks arrive as equal files in a directory`, async () => {
    using directory = new TemporaryFolder();
    const names = ["pc.ram", "/rom@etc/acpi/tables", "../../escape", "Grüße %41"];
    const files = ["pc.ram", "%2From%40etc%2Facpi%2Ftables", "%2E.%2F..%2Fescape"];
    files.push("Gr%C3%BC%C3%9Fe%20%2541");
    const blocks: string[] = [];
    for (const [index, name] of names.entries()) {
      const path = directory.file(`in${index}`);
      await Bun.write(path, makeImage((index + 1) * MIB + 4096, index + 1));
      blocks.push("--block", `${name}=${path}`);
    }
    const output = directory.file("out");
    const { sender, receiver } = await transfer(
      ["--output", output],
      [...blocks, "--verify"],
      ["--compression", method, "--channels", "3"],
    );
    expect([sender.stderr, receiver.stderr]).toEqual(["", ""]);
    expect([sender.status, receiver.status]).toEqual([0, 0]);
    expect((await readdir(output)).toSorted()).toEqual(files.toSorted());
    for (const [index, file] of files.entries()) {
      expect(await filesEqual(directory.file(`in${index}`), `${output}/${file}`)).toBe(true);
      expect(decodeURIComponent(file)).toBe(names[index] ?? "");
    }
    const ramBytes = 10 * MIB + 4 * 4096;
    expect(sender.result).toMatchObject({ ok: true, role: "sender", verified: true, ramBytes });
    expect(receiver.result).toMatchObject({ ok: true, role: "receiver", pageBytes: ramBytes });
    expect(receiver.result["multifdBytes"]).toEqual(sender.result["multifdBytes"]);
    expect(receiver.result["channels"]).toHaveLength(3);
  });
}

test("examples: one block becomes one file, over a Unix socket, with every option given", async () => {
  using directory = new TemporaryFolder();
  const image = directory.file("image.ram");
  const copy = directory.file("copy.ram");
  await Bun.write(image, makeImage(4 * MIB));
  await Bun.write(copy, "an older file");
  const { sender, receiver } = await transfer(
    ["--listen", `unix:${directory.file("socket")}`, "--output", copy, "--ram-max", "4M"],
    [
      "--block",
      `pc.ram=${image}`,
      "--zero-page-detection",
      "legacy",
      "--max-bandwidth",
      "1G",
      "--rounds",
      "2",
      "--round-delay",
      "0.01",
    ],
    [
      "--page-size",
      "64K",
      "--channels",
      "auto",
      "--compression",
      "zlib",
      "--engine",
      "libz",
      "--level",
      "3",
      "--uuid",
      "00112233-4455-6677-8899-AABBCCDDEEFF",
      "--connect-timeout",
      "5",
      "--idle-timeout",
      "20.5",
      "--stall-timeout",
      "5",
      "--verify",
    ],
  );
  expect([sender.stderr, receiver.stderr]).toEqual(["", ""]);
  expect([sender.status, receiver.status]).toEqual([0, 0]);
  expect(await filesEqual(image, copy)).toBe(true);
  expect(sender.result).toMatchObject({ rounds: 2, ramBytes: 4 * MIB });
});

test("examples: --rounds sends what another process changes meanwhile", async () => {
  using directory = new TemporaryFolder();
  const image = directory.file("live.ram");
  const copy = directory.file("copy.ram");
  await Bun.write(image, makeImage(4 * MIB));
  await using receiver = startReceiver(copy);
  await using sender = new ExampleProgram("sender", [
    "--connect",
    await receiver.listening(),
    "--block",
    `live=${image}`,
    "--json",
    "--rounds",
    "3",
    "--round-delay",
    "1.5",
  ]);
  // While the first pause lasts: well after the first round of 4 MiB, before the third begins.
  await Bun.sleep(1500);
  {
    await using file = await open(image, "r+");
    await file.write(Buffer.alloc(4096, 77), 0, 4096, 8 * 4096);
    await file.write(Buffer.alloc(4096, 78), 0, 4096, 4 * MIB - 4096);
  }
  expect((await sender.end()).status).toBe(0);
  expect((await receiver.end()).status).toBe(0);
  expect((await sender.end()).result).toMatchObject({ rounds: 3 });
  expect(await filesEqual(image, copy)).toBe(true);
});

test("examples: the copy is as sparse as the image is zero", async () => {
  using directory = new TemporaryFolder();
  const image = directory.file("image.ram");
  await Bun.write(image, makeImage(1 * MIB));
  await truncate(image, 512 * MIB);
  const copy = directory.file("copy.ram");
  const { sender } = await transfer(["--output", copy], ["--block", `pc.ram=${image}`]);
  expect(sender.status).toBe(0);
  const { size, blocks } = await stat(copy);
  expect(size).toBe(512 * MIB);
  expect(blocks * 512).toBeLessThan(2 * MIB);
});

const programs = [...new Bun.Glob("*.ts").scanSync(join(repositoryRoot, "examples"))]
  .filter((file) => {
    const text = readFileSync(join(repositoryRoot, "examples", file), "utf8");
    return text.includes("\nawait runProgram(");
  })
  .map((file) => file.slice(0, -".ts".length));

test("examples: every program prints its usage for --help, whatever else is there", async () => {
  expect(programs).toContain("sender");
  const readme = readFileSync(join(repositoryRoot, "README.md"), "utf8");
  for (const name of programs) {
    const { status, stdout, stderr } = await runExample(name, ["--help", "--bogus"]);
    expect({ name, status, stderr }).toEqual({ name, status: 0, stderr: "" });
    expect(stdout).toStartWith(`Usage: bun examples/${name}.ts`);
    expect({ name, inReadme: readme.includes(`examples/${name}.ts`) || name === "demo" }).toEqual({
      name,
      inReadme: true,
    });
  }
});

test("examples: wrong arguments end with status 2, the reason and the usage", async () => {
  const sender = ["--connect", "127.0.0.1:1", "--block", "a=/dev/null"];
  const receiver = ["--listen", "127.0.0.1:0", "--output", "x"];
  const wrong: [string, string[], string][] = [
    ["sender", [], "Missing --block"],
    ["sender", ["--block", "a=b"], "Missing --connect"],
    ["sender", [...sender, "--nonsense"], "--nonsense"],
    ["sender", [...sender, "word"], "word"],
    ["sender", [...sender, "--channels", "0"], "--channels 0: must be a whole number, 1 to 255"],
    ["sender", [...sender, "--channels", "256"], "--channels 256"],
    ["sender", [...sender, "--compression", "lz4"], "--compression lz4: must be one of none"],
    ["sender", [...sender, "--level", "fast"], "--level fast"],
    ["sender", [...sender, "--engine", "gzip"], "--engine gzip: must be one of"],
    [
      "receiver",
      [...receiver, "--compression", "zstd", "--engine", "libz"],
      "engine libz for zstd",
    ],
    ["sender", [...sender, "--page-size", "5000"], "--page-size 5000"],
    ["sender", [...sender, "--max-bandwidth", "fast"], "--max-bandwidth fast"],
    ["sender", [...sender, "--rounds", "0"], "--rounds 0"],
    ["sender", [...sender, "--zero-page-detection", "all"], "--zero-page-detection all"],
    ["sender", [...sender, "--idle-timeout", "0"], "--idle-timeout 0"],
    ["sender", [...sender, "--block", "a=other"], "same id"],
    ["sender", ["--connect", "127.0.0.1", "--block", "a=b"], "--connect 127.0.0.1: must be"],
    ["sender", ["--connect", "127.0.0.1:1", "--block", "image"], "--block image: must be"],
    ["receiver", ["--listen", "127.0.0.1:0"], "Missing --output"],
    ["receiver", ["--listen", "unix:", "--output", "x"], "--listen unix:"],
    ["receiver", [...receiver, "--uuid", "1234"], "1234"],
    ["receiver", [...receiver, "--compression", "zlib", "--level", "10"], "10"],
    ["receiver", [...receiver, "--accept-timeout"], "accept-timeout"],
    ["qemu_colo", ["--listen", "127.0.0.1:0"], "Missing --output"],
    ["qemu_colo", [...receiver, "--checkpoints", "0"], "--checkpoints 0: must be"],
  ];
  const check = async ([name, args, reason]: (typeof wrong)[number]): Promise<void> => {
    const { status, stderr } = await runExample(name, args);
    const [first = "", second, third] = stderr.split("\n");
    expect({ args, status, second }).toEqual({ args, status: 2, second: "" });
    expect(first).toContain(reason);
    expect(third).toStartWith(`Usage: bun examples/${name}.ts`);
  };
  for (let at = 0; at < wrong.length; at += 4) {
    await Promise.all(wrong.slice(at, at + 4).map(check));
  }
});

test("examples/sender: an image that cannot be read is one line and status 1", async () => {
  using directory = new TemporaryFolder();
  await Bun.write(directory.file("odd"), "x".repeat(5000));
  await Bun.write(directory.file("empty"), "");
  await outputOf(["mkfifo", directory.file("pipe")]);
  const wrong: [string, RegExp][] = [
    ["\u001B[31mred\nline", /^Cannot load [^\p{Cc}]* \[31mred line: ENOENT [^\p{Cc}]*\n$/u],
    ["missing", /^Cannot load .*missing: ENOENT \[ERR_MULTIFD_SYSTEM\]\n$/],
    ["odd", /5000 bytes, must be a positive multiple of the page size 4096\n$/],
    ["empty", / 0 bytes, must be a positive multiple of the page size 4096\n$/],
    ["pipe", /must be a regular file or a block device \[ERR_MULTIFD_IMAGE\]\n$/],
    [".", /must be a regular file or a block device \[ERR_MULTIFD_IMAGE\]\n$/],
  ];
  for (const [name, line] of wrong) {
    const block = `pc.ram=${directory.file(name)}`;
    const connect = ["--connect", "127.0.0.1:1", "--json"];
    const { status, stderr, result } = await runExample("sender", [...connect, "--block", block]);
    expect(stderr).toMatch(line);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(status).toBe(1);
    expect(result).toMatchObject({ ok: false, role: "sender" });
  }
});

test("examples/sender: nobody listens, so it fails with errno and peer", async () => {
  using directory = new TemporaryFolder();
  await Bun.write(directory.file("image"), makeImage(MIB));
  const { status, stderr } = await runExample("sender", [
    "--connect",
    "127.0.0.1:1",
    "--block",
    `pc.ram=${directory.file("image")}`,
  ]);
  expect(status).toBe(1);
  expect(stderr).toMatch(/^[^\n]*ECONNREFUSED[^\n]*\n$/);
  expect(stderr).toContain("127.0.0.1:1");
});

test("examples/receiver: a port in use is one line and status 1", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { port } = server.address() as AddressInfo;
    const listen = ["--listen", `127.0.0.1:${port}`, "--output", "unused"];
    const { status, stderr } = await runExample("receiver", listen);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^[^\n]*EADDRINUSE[^\n]*\n$/);
  } finally {
    server.close();
  }
});

test("examples/receiver: nowhere to write is told before anything is received", async () => {
  using directory = new TemporaryFolder();
  const missing = directory.file("no/such/directory/copy.ram");
  const listen = ["--listen", "127.0.0.1:0", "--output"];
  const { status, stderr } = await runExample("receiver", [...listen, missing]);
  expect(status).toBe(1);
  expect(stderr).toMatch(/^Cannot write to .*directory: ENOENT\n$/);
  const device = await runExample("receiver", [...listen, "/dev/null"]);
  expect(device.status).toBe(1);
  expect(device.stderr).toMatch(
    /^Cannot write \/dev\/null: .* must be a regular file or a folder\n$/,
  );
});

test("examples/receiver: several blocks do not go into a file, and the sender fails too", async () => {
  using directory = new TemporaryFolder();
  const image = directory.file("image");
  const output = directory.file("output");
  await Bun.write(image, makeImage(MIB));
  await Bun.write(output, "kept");
  const blocks = ["--block", `a=${image}`, "--block", `b=${image}`];
  const { sender, receiver } = await transfer(["--output", output], blocks);
  expect([sender.status, receiver.status]).toEqual([1, 1]);
  expect(receiver.stderr).toMatch(/^Cannot write 2 RAM blocks to .*must be a directory\n$/);
  expect(await Bun.file(output).text()).toBe("kept");
});

/** Whether this user may mount a file system, which takes more than being root in a container. */
const mayMount =
  Bun.spawnSync(["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).exitCode === 0;
const fullDisk = "a full disk fails both sides and leaves no file behind";
const unlessMounting = mayMount ? "" : " (skipped: mounting a small tmpfs needs root)";

test.skipIf(!mayMount)(`examples/receiver: ${fullDisk}${unlessMounting}`, async () => {
  using directory = new TemporaryFolder();
  const mountPoint = directory.file("full");
  await mkdir(mountPoint);
  await outputOf(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mountPoint]);
  try {
    const image = directory.file("image");
    await Bun.write(image, makeImage(8 * MIB));
    const { sender, receiver } = await transfer(
      ["--output", `${mountPoint}/copy`],
      ["--block", `pc.ram=${image}`],
    );
    expect([sender.status, receiver.status]).toEqual([1, 1]);
    expect(receiver.stderr).toMatch(/^Cannot save [^\n]*: ENOSPC \[ERR_MULTIFD_SYSTEM[^\n]*\n$/);
    expect(receiver.result).toMatchObject({ ok: false, error: { errno: "ENOSPC" } });
    expect(sender.stderr).toMatch(/^[^\n]*ERR_MULTIFD_PEER[^\n]*\n$/);
    expect(await readdir(mountPoint)).toEqual([]);
  } finally {
    await outputOf(["umount", mountPoint]);
  }
});

test("examples: --verify at the receiver alone refuses a sender without digests", async () => {
  using directory = new TemporaryFolder();
  const image = directory.file("image");
  await Bun.write(image, makeImage(MIB));
  const output = ["--output", directory.file("copy"), "--verify"];
  const { sender, receiver } = await transfer(output, ["--block", `pc.ram=${image}`]);
  expect([sender.status, receiver.status]).toEqual([1, 1]);
  expect(receiver.stderr).toMatch(
    /^Cannot verify RAM block pc.ram: its digest is missing [^\n]*\n$/,
  );
  expect(sender.stderr).toMatch(/^[^\n]*ERR_MULTIFD_PEER[^\n]*\n$/);
  expect(await readdir(directory.path)).toEqual(["image"]);
});

test("examples: different uuids fail on both sides", async () => {
  using directory = new TemporaryFolder();
  const image = directory.file("image");
  await Bun.write(image, makeImage(MIB));
  const { sender, receiver } = await transfer(
    ["--output", directory.file("copy")],
    ["--block", `pc.ram=${image}`, "--uuid", "00112233-4455-6677-8899-aabbccddeeff"],
  );
  expect([sender.status, receiver.status]).toEqual([1, 1]);
  expect(receiver.stderr).toMatch(/^[^\n]*uuid[^\n]*ERR_MULTIFD_HANDSHAKE_UUID[^\n]*\n$/);
  expect(sender.stderr).toMatch(/^[^\n]+\n$/);
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  for (const side of ["sender", "receiver"] as const) {
    test(`examples: ${signal} at the ${side} ends both sides within a second`, async () => {
      using directory = new TemporaryFolder();
      const copy = directory.file("copy");
      await using receiver = startReceiver(copy);
      const endpoint = await receiver.listening();
      const image = await slowImage(directory);
      const connect = ["--connect", endpoint, "--json"];
      await using sender = new ExampleProgram("sender", [...connect, ...image]);
      await untilConnected(endpoint, CONNECTIONS);
      await Bun.sleep(500); // 16 s are needed for the whole
      const signalledMs = performance.now();
      (side === "sender" ? sender : receiver).kill(signal);
      const cancelled = await (side === "sender" ? sender : receiver).end();
      const cancelMs = performance.now() - signalledMs;
      const other = await (side === "sender" ? receiver : sender).end();
      expect([cancelled.status, other.status]).toEqual([1, 1]);
      expect(cancelled.stderr).toMatch(RegExp(`^[^\\n]*cancelled \\(${signal}\\)[^\\n]*\\n$`));
      expect(cancelled.result).toMatchObject({ error: { code: "ERR_MULTIFD_CANCELLED" } });
      expect(other.stderr).toMatch(/^[^\n]+\n$/);
      // A second is promised; the second one is for a machine that is busy with other tests.
      expect(cancelMs).toBeLessThan(2000);
      expect((await readdir(directory.path)).toSorted()).toEqual(["slow.ram"]);
    });
  }
}

test("examples/receiver: SIGINT ends one that still waits for a sender", async () => {
  using directory = new TemporaryFolder();
  await using receiver = startReceiver(directory.file("copy"));
  await receiver.listening();
  const signalledMs = performance.now();
  receiver.kill("SIGINT");
  const { status } = await receiver.end();
  expect(performance.now() - signalledMs).toBeLessThan(2000);
  expect(status).toBe(1);
});

for (const side of ["sender", "receiver"] as const) {
  test(`examples: kill -9 of the ${side} is told by the other side`, async () => {
    using directory = new TemporaryFolder();
    await using receiver = startReceiver(directory.file("copy"));
    const endpoint = await receiver.listening();
    const image = await slowImage(directory);
    const connect = ["--connect", endpoint, "--json"];
    await using sender = new ExampleProgram("sender", [...connect, ...image]);
    await untilConnected(endpoint, CONNECTIONS);
    await Bun.sleep(500);
    (side === "sender" ? sender : receiver).kill("SIGKILL");
    const { status, stderr, result } = await (side === "sender" ? receiver : sender).end();
    expect(status).toBe(1);
    expect(stderr).toMatch(/^[^\n]+\n$/);
    expect(result).toMatchObject({ ok: false });
    expect(await readdir(directory.path)).toEqual(["slow.ram"]);
  });
}

test("examples/receiver: a Unix socket is free again after success, failure and kill -9", async () => {
  using directory = new TemporaryFolder();
  const image = directory.file("image");
  await Bun.write(image, makeImage(MIB));
  const socket = directory.file("socket");
  const receiver = (): ExampleProgram => startReceiver(directory.file("copy"), `unix:${socket}`);
  for (const end of ["success", "SIGINT", "SIGKILL", "success"] as const) {
    await using first = receiver();
    expect(await first.listening()).toBe(`unix:${socket}`);
    // While one listens, another one neither can nor disturbs it.
    const second = await runExample(
      "receiver",
      words(`--listen unix:${socket} --output ${directory.file("other")}`),
    );
    expect(second.status).toBe(1);
    expect(second.stderr).toContain("EADDRINUSE");
    if (end === "success") {
      const args = words(`--connect unix:${socket} --block pc.ram=${image}`);
      expect((await runExample("sender", args)).status).toBe(0);
      expect((await first.end()).status).toBe(0);
    } else {
      first.kill(end);
      await first.end();
    }
    expect((await readdir(directory.path)).includes("socket")).toBe(end === "SIGKILL");
  }
});

test("examples/receiver: is usable again right after a transfer on the same port", async () => {
  using directory = new TemporaryFolder();
  const image = directory.file("image");
  await Bun.write(image, makeImage(MIB));
  let endpoint = "127.0.0.1:0";
  for (const name of ["one", "two"]) {
    await using receiver = startReceiver(directory.file(name), endpoint);
    endpoint = await receiver.listening();
    const sender = await runExample("sender", [
      "--connect",
      endpoint,
      "--block",
      `pc.ram=${image}`,
    ]);
    expect([sender.status, (await receiver.end()).status]).toEqual([0, 0]);
    expect(sender.stdout).toMatch(
      /^memory .*\nwire .*\npages .*\nswitchover .*\nchannel 0 .*\nchannel 1 .*\n$/,
    );
    expect(await filesEqual(image, directory.file(name))).toBe(true);
  }
});

test("examples/demo: sends an image with every method and prints a table", async () => {
  const { status, stdout, stderr } = await runExample("demo", ["--size", "12M", "--channels", "2"]);
  expect(stderr).toBe("");
  expect(status).toBe(0);
  const methods = capabilities().methods.filter(({ available }) => available);
  expect(methods.length).toBeGreaterThan(0);
  for (const { method } of methods) {
    expect(stdout).toMatch(RegExp(`^${method} .* equal$`, "m"));
  }
});
