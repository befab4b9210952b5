/**
 * libvirt as the one who drives QEMU: two daemons on one machine, each with folders, a host name and
 * processes of its own, so that each takes the other for another host.
 *
 * The daemons run as user sessions in namespaces of their own. So they need no root and touch nothing
 * of the machine's libvirt, and the kernel ends all their guests with them.
 *
 * @module
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runCommand, type ProgramEnd } from "../kit/subprocess.ts";
import { noteBreakdown } from "./qemu.ts";
import { QEMU_BINARIES } from "./qemu_versions.ts";
import { TemporaryFolder } from "../kit/temporary_folder.ts";

const START_TIMEOUT_MS = 150_000; // the first connection has QEMU asked for its capabilities
const POLL_MS = 50;
const PROGRAMS = ["libvirtd", "virsh", "unshare", "setpriv"];
const NAMESPACES = ["--map-root-user", "--mount", "--uts", "--pid", "--fork", "--mount-proc"];
/** Daemons are in sbin, which is not on everybody's path. */
const PATH = `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`;

let missing: string | null | undefined;

/**
 * Whether libvirt can run here.
 *
 * @returns `null` if it can, or else what is missing, to be shown beside a skipped test
 */
export function libvirtMissing(): string | null {
  if (missing === undefined) missing = whyMissing();
  return missing;
}

function whyMissing(): string | null {
  const program = PROGRAMS.find((name) => Bun.which(name, { PATH }) === null);
  if (program !== undefined) {
    return `${program} not found; needs Debian packages libvirt-daemon, libvirt-daemon-driver-qemu, libvirt-clients`;
  }
  const nested = ["unshare", ...NAMESPACES, "unshare", "--map-user=1000", "true"];
  return Bun.spawnSync(nested).success ? null : "this user may not make namespaces";
}

/** A daemon with its guests; all of them end when the variable goes out of scope. */
export class Libvirt implements AsyncDisposable {
  /** Its connection URI, for `virsh migrate`. */
  readonly uri: string;
  readonly #folder = new TemporaryFolder();
  readonly #process: Bun.Subprocess<"pipe", "ignore", Bun.BunFile>;

  private constructor(host: string, uuid: string) {
    const folder = this.#folder.path;
    this.uri = `qemu+unix:///session?socket=${folder}/libvirt-sock`;
    for (const name of ["config/libvirt", "run", "cache", "data"]) {
      mkdirSync(join(folder, name), { recursive: true });
    }
    const settings = {
      unix_sock_dir: folder,
      // Two hosts that have the same one are taken for the same host.
      host_uuid: uuid,
      log_outputs: `3:file:${folder}/libvirtd.log`,
    };
    const text = Object.entries(settings).map(([name, value]) => `${name} = "${value}"\n`);
    const configuration = join(folder, "config/libvirt/libvirtd.conf");
    writeFileSync(configuration, text.join(""));
    writeFileSync(join(folder, "config/libvirt/qemu.conf"), 'security_driver = "none"\n');
    // A /dev/kvm that can be opened may still hang, and libvirt asks QEMU anew, many times, while there
    // is one that QEMU cannot use: it sees one that nobody may open.
    const noKvm = join(folder, "kvm");
    writeFileSync(noKvm, "", { mode: 0 });
    // Process 1 is the shell: it takes in QEMUs that have ended, which libvirt waits for, and lasts until
    // all processes of the namespace are gone. A host name with a dot is not looked up.
    const script =
      "exec 3<&0; { read -r _; kill -KILL -1; } <&3 & " +
      `hostname ${host}.example; [ ! -e /dev/kvm ] || mount --bind ${noKvm} /dev/kvm; ` +
      `unshare --map-user=1000 --map-group=1000 ` +
      `${Bun.which("libvirtd", { PATH })} --config ${configuration} --pid-file ${folder}/pid; exit`;
    const command = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", ...NAMESPACES];
    this.#process = Bun.spawn([...command, "--kill-child", "sh", "-c", script], {
      env: {
        ...process.env,
        HOME: folder,
        XDG_RUNTIME_DIR: join(folder, "run"),
        XDG_CONFIG_HOME: join(folder, "config"),
        XDG_CACHE_HOME: join(folder, "cache"),
        XDG_DATA_HOME: join(folder, "data"),
      },
      stdin: "pipe",
      stdout: "ignore",
      stderr: Bun.file(join(folder, "stderr")),
    });
  }

  /** Starts a daemon and waits until it knows its QEMU. */
  static async start(host: string): Promise<Libvirt> {
    const daemon = new Libvirt(host, crypto.randomUUID());
    const deadline = performance.now() + START_TIMEOUT_MS;
    for (;;) {
      const { status, stderr } = await daemon.virsh("version");
      if (status === 0) return daemon;
      if (performance.now() > deadline || daemon.#process.exitCode !== null) {
        const own = await Bun.file(daemon.#folder.file("stderr")).text();
        await daemon[Symbol.asyncDispose]();
        throw new Error(`Cannot start libvirtd: ${stderr}${own}`);
      }
      await Bun.sleep(POLL_MS);
    }
  }

  /** Runs virsh to its end, whatever that is. */
  virsh(...args: readonly string[]): Promise<ProgramEnd> {
    return runCommand(["virsh", "--connect", this.uri, ...args], { timeoutMs: START_TIMEOUT_MS });
  }

  /** Runs virsh; its failure fails the test with its words. */
  async must(...args: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await this.virsh(...args);
    if (status !== 0) throw new Error(`Cannot run virsh ${args.join(" ")}: ${stderr}`);
    return stdout.trim();
  }

  /** Copies a guest's memory from address 0 on; stop it first if the pages must fit each other. */
  async memoryOf(guest: string, bytes: number): Promise<Uint8Array> {
    const filename = this.#folder.file("memory");
    const save = { execute: "pmemsave", arguments: { val: 0, size: bytes, filename } };
    const answer = await this.must("qemu-monitor-command", guest, JSON.stringify(save));
    if (!answer.includes('"return"')) throw new Error(answer);
    return Bun.file(filename).bytes();
  }

  /** Ends a guest if it is there, and takes note if it has crashed. */
  async destroy(guest: string): Promise<void> {
    await this.virsh("destroy", guest);
    const log = Bun.file(this.#folder.file(`cache/libvirt/qemu/log/${guest}.log`));
    if ((await log.exists()) && (await log.text()).includes("reason=crashed")) {
      noteBreakdown("a guest of libvirt has crashed");
    }
  }

  /** Ends the daemon and its guests. Safe to call twice. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process.stdin.end();
    await this.#process.exited;
    this.#folder[Symbol.dispose]();
  }
}

/** What a guest's description says. */
export interface GuestDescription {
  readonly name: string;
  readonly memoryMib: number;
  /** Firmware image. */
  readonly bios: string;
  /** File that its serial port appends to, the same one on both hosts. */
  readonly serial: string;
  /** Default: whatever libvirt sets. */
  readonly compression?: string | undefined;
}

/** A guest's description for libvirt: the tiny guest with its serial port in a file. */
export function guestXml(guest: GuestDescription): string {
  const method = `migration.multifd-compression=${guest.compression}`;
  const global =
    guest.compression === undefined
      ? ""
      : `<qemu:commandline><qemu:arg value='-global'/><qemu:arg value='${method}'/></qemu:commandline>`;
  return `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>${guest.name}</name>
  <uuid>${guest.name}</uuid>
  <memory unit='MiB'>${guest.memoryMib}</memory>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <loader readonly='yes' type='rom'>${guest.bios}</loader>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>${Bun.which(QEMU_BINARIES["10.0"])}</emulator>
    <serial type='file'><source path='${guest.serial}' append='on'/></serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
  ${global}
</domain>
`;
}
