/**
 * Makes what encrypts transfers: a code, a file of a shared key, or an authority with certificates of
 * both sides, and says what QEMU and the programs here are told then. `--help` has the options.
 *
 *     bun examples/keys.ts --psk keys
 *     bun examples/keys.ts --pki pki --host vm1.example --host 10.0.0.7
 *
 * @module
 */
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import {
  fromArguments,
  parseProgramArguments,
  required,
  UsageError,
  wholeNumber,
} from "./arguments.ts";
import { CertificateAuthority } from "./certificate_authority.ts";
import { codeOf } from "./tls_arguments.ts";
import { runProgram } from "./program.ts";
import { keysOfCode, randomCode, randomKeys } from "./psk_code.ts";

const USAGE = `\
Usage: bun examples/keys.ts --code | --psk DIR | --pki DIR [options]

Makes what encrypts transfers and prints the options of QEMU and of the programs here that go with it.
Replaces nothing that is there. Needs openssl for --pki.

  --code                   a random code for --tls-psk-code on both sides
  --psk DIR                a shared key in DIR/keys.psk, to be copied to both sides
  --tls-psk-code CODE      --psk: the key that this code stands for, for a QEMU at the other end;
                           @FILE takes it from a file (default: a random key)
  --tls-username NAME      --psk: whose key it is (default qemu)
  --pki DIR                an authority in DIR/ca, and folders DIR/server and DIR/client for the
                           receiver's machine and the sender's
  --host NAME              --pki: name or address of the receiver, as senders connect to it; may
                           repeat (default localhost, 127.0.0.1 and this machine's name)
  --name NAME              --pki: common name of the sender, for --tls-allow (default source)
  --days N                 --pki: how long the certificates are valid (default 365)
  -h, --help               this text`;

function makeCode(): string[] {
  const code = randomCode();
  return [
    `Keep it secret, and tell it to both sides:`,
    `  bun examples/receiver.ts … --tls-psk-code ${code}`,
    `  bun examples/sender.ts   … --tls-psk-code ${code}`,
  ];
}

function makePsk(dir: string, username: string, code: string | undefined): string[] {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const keys = code === undefined ? randomKeys(username) : keysOfCode(code, username);
  writeFileSync(join(dir, "keys.psk"), keys, { mode: 0o600, flag: "wx" });
  const user = username === "qemu" ? "" : ` --tls-username ${username}`;
  return [
    `Made ${join(dir, "keys.psk")}, the same for both sides.`,
    "",
    ...qemuLines(
      `tls-creds-psk,id=tls0,dir=${dir},endpoint=server`,
      `tls-creds-psk,id=tls0,dir=${dir},endpoint=client,username=${username}`,
    ),
    ...programLines(`psk:${dir}`, `psk:${dir}${user}`),
  ];
}

interface PkiWish {
  readonly hosts: readonly string[];
  readonly name: string;
  readonly days: number;
}

function makePki(dir: string, { hosts, name, days }: PkiWish): string[] {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  mkdirSync(join(dir, "ca"), { mode: 0o700 });
  const authority = new CertificateAuthority(join(dir, "ca"), "ca", days);
  chmodSync(join(dir, "ca", "ca-key.pem"), 0o600);
  const server = authority.folder("../server", "server", { commonName: hosts[0]!, names: hosts });
  const client = authority.folder("../client", "client", { commonName: name, names: [name] });
  return [
    `Made ${server} for the receiver's machine, ${client} for the sender's, and`,
    `${join(dir, "ca")}, whose key signs more of them and belongs on neither.`,
    "",
    ...qemuLines(
      `tls-creds-x509,id=tls0,dir=${server},endpoint=server,verify-peer=on`,
      `tls-creds-x509,id=tls0,dir=${client},endpoint=client`,
    ),
    ...programLines(`x509:${server} --tls-allow CN=${name}`, `x509:${client}`),
  ];
}

function qemuLines(server: string, client: string): string[] {
  return [
    "QEMU as the destination, then as the source, and in the monitor of each:",
    `  -object ${server}`,
    `  -object ${client}`,
    "  migrate_set_parameter tls-creds tls0",
    "",
  ];
}

function programLines(server: string, client: string): string[] {
  return [
    "Programs that listen, and programs that connect:",
    `  --tls-creds ${server}`,
    `  --tls-creds ${client}`,
  ];
}

async function makeKeys(): Promise<void> {
  const values = parseProgramArguments({
    code: { type: "boolean" },
    psk: { type: "string" },
    "tls-psk-code": { type: "string" },
    "tls-username": { type: "string", default: "qemu" },
    pki: { type: "string" },
    host: { type: "string", multiple: true },
    name: { type: "string", default: "source" },
    days: { type: "string", default: "365" },
    help: { type: "boolean", short: "h" },
  });
  const { code, psk, pki, host, name, "tls-username": username } = values;
  const wanted = [code === true, psk !== undefined, pki !== undefined];
  if (wanted.filter(Boolean).length !== 1) {
    throw new UsageError("Cannot tell what to make: must be one of --code, --psk and --pki");
  }
  const said = values["tls-psk-code"];
  const days = wholeNumber("--days", values.days, 1, 36_500);
  const hosts = host ?? ["localhost", "127.0.0.1", hostname()];
  if (code === true) console.log(makeCode().join("\n"));
  else if (psk !== undefined) {
    const dir = resolve(required("--psk", psk));
    const words = said === undefined ? undefined : codeOf(said);
    const lines = Promise.try(() => makePsk(dir, username, words));
    console.log((await fromArguments(lines)).join("\n"));
  } else {
    const dir = resolve(required("--pki", pki));
    console.log(makePki(dir, { hosts, name, days }).join("\n"));
  }
}

await runProgram(USAGE, makeKeys);
