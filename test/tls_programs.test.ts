import { expect, test } from "bun:test";
import { statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { keysOfCode, randomCode } from "../examples/psk_code.ts";
import {
  ExampleProgram,
  filesEqual,
  makeImage,
  runExample,
  transfer,
} from "./kit/example_program.ts";
import { TemporaryFolder } from "./kit/temporary_folder.ts";
import { pskFolder, TestAuthority } from "./kit/tls_folders.ts";

const MIB = 1 << 20;
const CODE = "three-words-here";

/** An image and where its copy goes. */
async function images(folder: TemporaryFolder) {
  const [image, copy] = [folder.file("image.ram"), folder.file("copy.ram")];
  await Bun.write(image, makeImage(2 * MIB));
  return { image, copy, block: `pc.ram=${image}` };
}

test("a secret that both programs are told encrypts a transfer, however it is written", async () => {
  using folder = new TemporaryFolder();
  const { image, copy, block } = await images(folder);
  writeFileSync(folder.file("code"), "Three Words\tHere\n");
  const { sender, receiver } = await transfer(
    ["--output", copy, "--tls-psk-code", CODE],
    ["--block", block, "--tls-psk-code", `@${folder.file("code")}`],
  );
  expect([sender.stderr, receiver.stderr]).toEqual(["", ""]);
  expect([sender.status, receiver.status]).toEqual([0, 0]);
  expect(await filesEqual(image, copy)).toBe(true);
});

test("another secret is refused on both sides, and none of them is told to anybody", async () => {
  using folder = new TemporaryFolder();
  const { copy, block } = await images(folder);
  const { sender, receiver } = await transfer(
    ["--output", copy, "--tls-psk-code", CODE, "--accept-timeout", "2"],
    ["--block", block, "--tls-psk-code", "other-words-there"],
  );
  expect([sender.status, receiver.status]).toEqual([1, 1]);
  expect(sender.stderr).toMatch(/^Cannot open TLS connection with .*ERR_MULTIFD_TLS_HANDSHAKE/);
  expect(receiver.stderr).toContain("the key of the sender is another than here");
  const said = [sender, receiver].map(({ stdout, stderr }) => stdout + stderr).join("");
  for (const code of [CODE, "other-words-there"]) {
    expect(said).not.toContain(code);
    expect(said).not.toContain(keysOfCode(code).slice("qemu:".length, -1));
  }
});

test("folders of certificates and the name that a receiver takes are options of programs", async () => {
  using folder = new TemporaryFolder();
  const { image, copy, block } = await images(folder);
  const authority = new TestAuthority(folder.path, "ca");
  const server = authority.folder("server", "server", { names: ["elsewhere"] });
  const client = authority.folder("client", "client", { commonName: "source" });
  const receiving = ["--output", copy, "--tls-creds", `x509:${server}`, "--tls-allow", "CN=source"];
  const sending = ["--block", block, "--tls-creds", `x509:${client}`];
  const { sender } = await transfer(receiving, [...sending, "--tls-hostname", "elsewhere"]);
  expect([sender.status, sender.stderr]).toEqual([0, ""]);
  expect(await filesEqual(image, copy)).toBe(true);
  const limit = ["--accept-timeout", "2"];
  const wrong = await transfer([...receiving, ...limit], sending);
  expect(wrong.sender.stderr).toContain("it is not that of the host");
  expect([wrong.sender.status, wrong.receiver.status]).toEqual([1, 1]);
});

test("a relay has credentials of its own on each end", async () => {
  using folder = new TemporaryFolder();
  const { image, copy, block } = await images(folder);
  const creds = ["--tls-creds", `psk:${pskFolder(folder.path, "keys", ["ann"])}`];
  const into = ["--listen", "127.0.0.1:0", "--output", copy, "--tls-psk-code", CODE, "--json"];
  await using receiver = new ExampleProgram("receiver", into);
  const to = ["--connect", await receiver.listening(), "--to-tls-psk-code", CODE];
  const from = ["--listen", "127.0.0.1:0", ...creds, "--json"];
  await using relay = new ExampleProgram("qemu_relay", [...from, ...to]);
  const sending = ["--connect", await relay.listening(), "--block", block];
  const sender = await runExample("sender", [...sending, ...creds, "--tls-username", "ann"]);
  const ends = [sender, await relay.end(), await receiver.end()];
  expect(ends.map(({ status, stderr }) => [status, stderr.replace(/^listening.*\n/, "")])).toEqual([
    [0, ""],
    [0, ""],
    [0, ""],
  ]);
  expect(await filesEqual(image, copy)).toBe(true);
});

test("a pair of COLO is encrypted from its first copy to the last checkpoint", async () => {
  const args = ["--table", "2M", "--kill-after", "500", "--tls-psk-code", CODE, "--json"];
  const { status, stderr, result } = await runExample("colo", args);
  expect([status, stderr]).toEqual([0, ""]);
  expect(result).toMatchObject({ equal: true });
});

test("options of TLS that do not fit together are wrong arguments, told without a secret", async () => {
  const sender = ["--connect", "127.0.0.1:1", "--block", "a=/dev/null"];
  const wrong: [string[], string][] = [
    [["--tls-creds", "pem:/etc"], "--tls-creds pem:/etc: must be x509:DIR or psk:DIR"],
    [["--tls-creds", "psk:"], "--tls-creds psk:: must be"],
    [["--tls-creds", "psk:x", "--tls-psk-code", CODE], "must be one of them"],
    [["--tls-creds", "psk:x", "--tls-allow", "CN=x"], "--tls-allow without --tls-creds x509:DIR"],
    [["--tls-hostname", "x"], "--tls-hostname without --tls-creds x509:DIR"],
    [["--tls-username", "x"], "--tls-username without --tls-creds psk:DIR"],
    [
      ["--tls-creds", "x509:x", "--tls-verify-peer", "no"],
      "--tls-verify-peer no: must be on or off",
    ],
    [["--tls-psk-code", "hunter2"], "the code has 7 letters and digits, must have 12"],
    [["--tls-psk-code", "@/nowhere"], "cannot read /nowhere"],
  ];
  const ends = await Promise.all(
    wrong.map(async ([args]) => runExample("sender", [...sender, ...args])),
  );
  for (const [index, { status, stderr }] of ends.entries()) {
    expect(stderr.split("\n")[0]).toContain(wrong[index]![1]);
    expect(status).toBe(2);
    expect(stderr).not.toContain("hunter2");
  }
});

test("keys.ts makes a shared key and certificates that programs use, and replaces nothing", async () => {
  using folder = new TemporaryFolder();
  const { image, copy, block } = await images(folder);
  const [psk, pki] = [folder.file("psk"), folder.file("pki")];
  const made = await runExample("keys", ["--psk", psk, "--tls-psk-code", CODE]);
  expect([made.status, made.stderr]).toEqual([0, ""]);
  expect(made.stdout).toContain(`-object tls-creds-psk,id=tls0,dir=${psk},endpoint=server`);
  expect(made.stdout).not.toContain(keysOfCode(CODE).slice("qemu:".length, -1));
  expect(statSync(join(psk, "keys.psk")).mode & 0o777).toBe(0o600);
  const again = await runExample("keys", ["--psk", psk]);
  expect(again.stderr).toContain("EEXIST");
  expect(again.status).toBe(1);
  const code = ["--output", copy, "--tls-psk-code", CODE];
  const first = await transfer(code, ["--block", block, "--tls-creds", `psk:${psk}`]);
  expect(first.sender.status).toBe(0);

  const names = ["--host", "127.0.0.1", "--name", "ann"];
  const authority = await runExample("keys", ["--pki", pki, ...names]);
  expect([authority.status, authority.stderr]).toEqual([0, ""]);
  expect(authority.stdout).toContain(`tls-creds-x509,id=tls0,dir=${pki}/server,endpoint=server`);
  const second = await transfer(
    ["--output", copy, "--tls-creds", `x509:${pki}/server`, "--tls-allow", "CN=ann"],
    ["--block", block, "--tls-creds", `x509:${pki}/client`],
  );
  expect(second.sender.status).toBe(0);
  expect(await filesEqual(image, copy)).toBe(true);

  const random = await runExample("keys", ["--code"]);
  expect(random.stdout).toMatch(/--tls-psk-code ([a-z]{5}-){3}[a-z]{5}\n/);
  for (const args of [[], ["--code", "--psk", psk], ["--psk", pki, "--tls-psk-code", "short"]]) {
    expect((await runExample("keys", args)).status).toBe(2);
  }
});

test("codes are random, can be spoken, and are long enough to be used", () => {
  const codes = Array.from({ length: 20 }, randomCode);
  expect(new Set(codes).size).toBe(20);
  for (const code of codes) expect(code).toMatch(/^([a-z]{5}-){3}[a-z]{5}$/);
  expect(keysOfCode(codes[0]!)).toMatch(/^qemu:[0-9a-f]{64}\n$/);
});
