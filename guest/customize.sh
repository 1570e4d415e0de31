#!/bin/sh
# Sets up a root tree that mmdebstrap has filled: users, names, shells, sources. Run by mmdebstrap: ROOT IMAGE.
set -eu
root=$1
image=$2

chroot "$root" useradd --create-home --shell /bin/bash --user-group --uid 1000 user

if [ "$image" = base ]; then
  chroot "$root" usermod --append --groups sudo user
  echo 'user ALL=(ALL:ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/user"
  chmod 0440 "$root/etc/sudoers.d/user"
fi

echo thaw > "$root/etc/hostname"
cat > "$root/etc/hosts" <<'END'
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
END
rm -f "$root/etc/resolv.conf"
echo 'nameserver 8.8.8.8' > "$root/etc/resolv.conf"
: > "$root/etc/machine-id"
: > "$root/etc/fstab"
: > "$root/etc/motd"

# Prints nothing and keeps every variable that the starter of the shell has set, PATH included.
cat > "$root/etc/profile" <<'END'
if [ -z "${PATH-}" ]; then
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  export PATH
fi
if [ -n "${PS1-}" ]; then
  if [ -n "${BASH-}" ] && [ "$BASH" != /bin/sh ]; then
    [ -f /etc/bash.bashrc ] && . /etc/bash.bashrc
  elif [ "$(id -u)" -eq 0 ]; then
    PS1='# '
  else
    PS1='$ '
  fi
fi
for script in /etc/profile.d/*.sh; do
  [ -r "$script" ] && . "$script"
done
unset script
true
END

rm -rf "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/preferences.d/*
cat > "$root/etc/apt/sources.list" <<'END'
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
END

# In place of the options of this installation, which may name a proxy of the machine it ran on.
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap"
echo 'Acquire::Languages "none";' > "$root/etc/apt/apt.conf.d/90languages"

# Process 1 ends the machine when it gets a TERM.
for name in poweroff halt reboot; do
  printf '#!/bin/sh\nexec kill -TERM 1\n' > "$root/usr/local/sbin/$name"
  chmod 0755 "$root/usr/local/sbin/$name"
done

# Caches and logs of the installation; each would differ from build to build.
rm -rf "$root"/var/cache/ldconfig/* "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old \
  "$root"/etc/*- "$root"/tmp/* "$root"/run/*
find "$root/var/log" "$root/var/cache/apt" -type f -delete
find "$root/var/lib/apt/lists" -mindepth 1 -delete
