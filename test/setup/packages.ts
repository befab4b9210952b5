/**
 * Installs the Debian packages that tests use. Nothing here may fail the run: a test whose program
 * or library is missing skips itself and says so, so a machine without root or without backports
 * still runs all the others.
 */
import { chmodSync, mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { backportsSources, machineSources } from "./apt_sources.ts";
import { outputOf, run } from "./command.ts";

/** A Debian package and what the tests use it for. */
interface Requirement {
  readonly name: string;
  readonly usedFor: string;
  /** An older version counts as missing. */
  readonly versionMin?: string;
}

const plainPackages: readonly Requirement[] = [
  { name: "zlib1g", usedFor: "the zlib codec" },
  { name: "libzstd1", usedFor: "the zstd codec" },
  { name: "libdeflate0", usedFor: "the faster zlib codec" },
  { name: "libisal2", usedFor: "zero page detection and the fastest zlib codec" },
  { name: "libgnutls30", usedFor: "TLS" },
  { name: "libssl3", usedFor: "fast TLS" },
  { name: "openssl", usedFor: "certificates of tests" },
  { name: "zstd", usedFor: "reading our streams with the reference program" },
  { name: "gcc", usedFor: "comparisons with C programs" },
  { name: "libc6-dev", usedFor: "comparisons with C programs" },
  { name: "nasm", usedFor: "guest boot sectors" },
  { name: "busybox-static", usedFor: "guest initial RAM disks" },
  { name: "cpio", usedFor: "guest initial RAM disks" },
  { name: "libvirt-daemon", usedFor: "migrations by libvirt" },
  { name: "libvirt-daemon-driver-qemu", usedFor: "migrations by libvirt" },
  { name: "libvirt-clients", usedFor: "migrations by libvirt" },
];

// Multifd's wire format got its present form in QEMU 9.0, device state in 10.0; Debian 12 has 7.2.
const qemu: Requirement = {
  name: "qemu-system-x86",
  usedFor: "interoperation with QEMU",
  versionMin: "1:10.0",
};

const aptGet = [
  "apt-get",
  // A fresh machine is often still installing its own updates.
  "--option=DPkg::Lock::Timeout=120",
  "--option=Acquire::http::Timeout=30",
  "--option=Acquire::Retries=1",
  // Progress bars, which a log keeps for ever.
  "--quiet",
  "--option=Dpkg::Use-Pty=0",
];
const install = ["install", "--yes", "--no-install-recommends"];

/** Installs the packages that are missing, as far as this machine allows, and prints the rest. */
export async function installPackages(): Promise<void> {
  const missing = await missingOf([...plainPackages, qemu]);
  if (missing === undefined) {
    console.log(
      "Cannot install test packages: this is not a Debian, so dpkg and apt-get are missing. " +
        `Tests without these programs and libraries are skipped: ${describe([...plainPackages, qemu])}`,
    );
    return;
  }
  if (missing.length === 0) {
    console.log("all installed");
    return;
  }
  console.log(`missing: ${describe(missing)}`);

  const asRoot = await rootPrefix();
  if (asRoot === undefined) {
    console.log(
      "Cannot install test packages: this user is not root and sudo asks for a password. " +
        `For the tests that are skipped now, run: sudo apt-get install ${names(missing)}`,
    );
    return;
  }

  const plainMissing = missing.filter((requirement) => requirement !== qemu);
  if (plainMissing.length > 0) {
    const apt = [...asRoot, ...noninteractive, ...aptGet];
    // The status does not matter: one unreachable third-party source must not stop the rest.
    await run([...apt, "update"]);
    await run([...apt, ...install, ...plainMissing.map(({ name }) => name)]);
  }
  if (missing.includes(qemu)) await installQemu(asRoot);

  const left = (await missingOf(missing)) ?? missing;
  if (left.length === 0) console.log("all installed now");
  else console.log(`still missing, so the tests that need it are skipped: ${describe(left)}`);
}

/** Installs a package if this release has it; whether it is there afterwards. */
export async function installPackage(name: string): Promise<boolean> {
  const policy = await outputOf(["apt-cache", "policy", name]);
  if (policy === undefined || !/Candidate: (?!\(none\))\S/.test(policy)) return false;
  const asRoot = await rootPrefix();
  if (asRoot === undefined) return false;
  return (await run([...asRoot, ...noninteractive, ...aptGet, ...install, name])) === 0;
}

/**
 * Installs QEMU from the release's backports with a private source list and private package lists,
 * so that the machine's own apt configuration stays as it was.
 */
async function installQemu(asRoot: readonly string[]): Promise<void> {
  const codename = await outputOf([
    "sh",
    "-c",
    '. /etc/os-release && printf %s "$VERSION_CODENAME"',
  ]);
  const sources = backportsSources(machineSources(), codename ?? "");
  if (codename === undefined || sources === undefined) {
    console.log(
      `Cannot install ${qemu.name}: apt's sources name no mirror of this Debian release, ` +
        "they must have one with the component main",
    );
    return;
  }

  const directory = mkdtempSync(join(tmpdir(), "multifd-apt-"));
  try {
    // apt downloads as the user _apt, who must get in.
    chmodSync(directory, 0o755);
    for (const name of ["sources", "lists", "lists/partial"]) mkdirSync(join(directory, name));
    writeFileSync(join(directory, "sources/backports.sources"), sources);
    const apt = [
      ...asRoot,
      ...noninteractive,
      ...aptGet,
      "--option=Dir::Etc::SourceList=/dev/null",
      `--option=Dir::Etc::SourceParts=${join(directory, "sources")}`,
      `--option=Dir::State::Lists=${join(directory, "lists")}`,
      // Otherwise the machine's cache files would describe our lists.
      "--option=Dir::Cache::pkgcache=",
      "--option=Dir::Cache::srcpkgcache=",
    ];
    if ((await run([...apt, "update", "--error-on=any"])) !== 0) {
      console.log(
        "Cannot read the package lists: apt reported the errors above, " +
          `the machine's Debian mirror must be reachable and have ${codename}-backports`,
      );
    }
    await run([...apt, ...install, `--target-release=${codename}-backports`, qemu.name]);
  } finally {
    // apt's lists belong to root, so a plain removal would fail under sudo.
    await run([...asRoot, "rm", "-rf", directory]);
  }
}

/** Those of the given packages that are not installed, or undefined without dpkg. */
async function missingOf(requirements: readonly Requirement[]): Promise<Requirement[] | undefined> {
  if (Bun.which("dpkg-query") === null || Bun.which("apt-get") === null) return undefined;
  const missing: Requirement[] = [];
  for (const requirement of requirements) {
    // One call per package: a single unknown name makes the whole query fail.
    const answer = await outputOf([
      "dpkg-query",
      "--show",
      "--showformat=${db:Status-Status} ${Version}",
      requirement.name,
    ]);
    const [status, version = ""] = (answer ?? "").split(" ");
    if (status !== "installed" || !(await isAtLeast(version, requirement.versionMin))) {
      missing.push(requirement);
    }
  }
  return missing;
}

async function isAtLeast(version: string, versionMin: string | undefined): Promise<boolean> {
  if (versionMin === undefined) return true;
  return (await run(["dpkg", "--compare-versions", version, "ge", versionMin])) === 0;
}

/** What to put before a command to run it as root: nothing, sudo, or undefined for "impossible". */
async function rootPrefix(): Promise<readonly string[] | undefined> {
  if (process.getuid?.() === 0) return [];
  return (await run(["sudo", "-n", "true"], { quiet: true })) === 0 ? ["sudo", "-n"] : undefined;
}

// Through env(1), since sudo drops the environment.
const noninteractive = ["env", "DEBIAN_FRONTEND=noninteractive"];

function names(requirements: readonly Requirement[]): string {
  return requirements.map(({ name }) => name).join(" ");
}

function describe(requirements: readonly Requirement[]): string {
  return requirements
    .map(({ name, usedFor, versionMin }) => {
      const version = versionMin === undefined ? "" : ` >= ${versionMin}`;
      return `${name}${version} (${usedFor})`;
    })
    .join(", ");
}

if (import.meta.main) await installPackages();
