/** Names as policies name them: `example.com`, and `*.example.com` for all below it but not itself. */

/** What a host is called (RFC 1123), with underscores: ASCII, so that lower case means the same to everybody. */
const HOST_NAME = /^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*$/;

export function isHostName(name: string): boolean {
  return name.length <= 253 && HOST_NAME.test(name);
}

/** Those of `domains` that a name in lower case falls under. */
export function matching(domains: readonly string[], name: string): string[] {
  return domains.filter((domain) =>
    domain.startsWith('*.')
      ? name.endsWith(domain.slice(1)) && name.length >= domain.length
      : name === domain,
  );
}

/** Whether one of `domains` lies below the name. */
export function isAbove(domains: readonly string[], name: string): boolean {
  return domains.some((domain) => domain.endsWith(`.${name}`));
}
