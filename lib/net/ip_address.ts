/**
 * Which text is a numeric address. Written out, because channel threads need nothing else of the
 * runtime's network module and start without it.
 *
 * @module
 */
const BYTE = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const IPV4 = RegExp(`^${BYTE}(?:\\.${BYTE}){3}$`);
const GROUP = /^[\da-f]{1,4}$/i;
const GROUPS = 8;
const ZONE = /^[\da-z.:-]+$/i;

/** Version of a numeric address, 4 or 6 (with or without a zone); 0 for any other text. */
export function ipVersion(host: string): 0 | 4 | 6 {
  if (IPV4.test(host)) return 4;
  return isIpv6(host) ? 6 : 0;
}

function isIpv6(host: string): boolean {
  const [address = "", zone, ...more] = host.split("%");
  if (more.length > 0 || (zone !== undefined && !ZONE.test(zone))) return false;
  const [head = "", tail, ...others] = address.split("::");
  if (others.length > 0) return false;
  if (tail === undefined) return countGroups(head, true) === GROUPS;
  const count = countGroups(head, false) + countGroups(tail, true);
  return count < GROUPS; // NaN is not
}

/** 16-bit groups in one half of an address; NaN when one of them is none. */
function countGroups(half: string, last: boolean): number {
  if (half === "") return 0;
  const groups = half.split(":");
  const embedded = last && IPV4.test(groups.at(-1) ?? "");
  if (embedded) groups.pop();
  if (!groups.every((group) => GROUP.test(group))) return Number.NaN;
  return groups.length + (embedded ? 2 : 0);
}
