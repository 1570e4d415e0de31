/** What systemd is told. */
import type { InstallPaths } from './paths.ts';
import { SANDBOXES_UNIT } from './paths.ts';

/** Where systemd lets Thaw make control groups of its own. */
export const SANDBOXES_GROUP = `/system.slice/${SANDBOXES_UNIT}`;

/**
 * KillMode=process: a stop or restart ends `thaw up`, which ends its daemons; sandboxes go on. They are in a unit of
 * their own, because a unit whose control group is divided cannot be started again while anything is left in it.
 */
export function unitText(paths: InstallPaths): string {
  return `[Unit]
Description=Thaw, sandboxes that pause, resume and fork
Wants=network-online.target ${SANDBOXES_UNIT}
After=network-online.target ${SANDBOXES_UNIT}

[Service]
Type=exec
Environment=THAW_CGROUP=${SANDBOXES_GROUP}
EnvironmentFile=-${paths.settings}
ExecStart=${paths.program} up
KillMode=process
Delegate=yes
Restart=on-failure
RestartSec=2
TimeoutStopSec=200
LimitNOFILE=1048576
TasksMax=infinity

[Install]
WantedBy=multi-user.target
`;
}

/** Nothing runs in it by itself: it holds the sandboxes' control groups, so no restart of Thaw touches them. */
export function sandboxesUnitText(): string {
  return `[Unit]
Description=The sandboxes of Thaw

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
KillMode=process
SendSIGKILL=no
Delegate=yes
TasksMax=infinity

[Install]
WantedBy=multi-user.target
`;
}

/** Comments, and the settings that were in the environment of \`thaw install\`. */
export function settingsText(env: Record<string, string>): string {
  const chosen = Object.entries(env).map(([name, value]) => `${name}=${quote(value)}\n`);
  return `# Settings of Thaw, read when it starts: systemctl restart thaw.service (sandboxes go on).
#THAW_LISTEN=127.0.0.1:8080
#THAW_TLS_CERT=/etc/thaw/cert.pem
#THAW_TLS_KEY=/etc/thaw/key.pem
#THAW_PROXY_LISTEN=127.0.0.1:8081
#THAW_PROXY_TLS_LISTEN=0.0.0.0:3443
#THAW_PROXY_TLS_CERT=/etc/thaw/proxy-cert.pem
#THAW_PROXY_TLS_KEY=/etc/thaw/proxy-key.pem
#THAW_DOMAIN=sandboxes.example.org:3443
#THAW_DATA=/var/lib/thaw
#DATABASE_URL=postgres://user:password@host/database
${chosen.join('')}`;
}

/** As both systemd and a shell read it. */
function quote(value: string): string {
  return /^[\w./:@,+-]*$/.test(value) ? value : `"${value.replace(/[\\"$`]/g, '\\$&')}"`;
}

/** What `quote` made, or an operator's editor. */
export function unquote(text: string): string {
  const [, single, double] = /^(?:'([^']*)'|"((?:[^"\\]|\\.)*)")$/.exec(text) ?? [];
  return single ?? double?.replace(/\\(.)/g, '$1') ?? text;
}
