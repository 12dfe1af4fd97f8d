#!/usr/bin/env bash
# Runs tests/isa_cases.py on the AVX-512 kernels on a machine without AVX-512: boots a Linux kernel in Bochs,
# which emulates the instructions, with a Python that has convlet installed as its only program. Takes
# about ten minutes. On Debian 12:
#   apt-get install bochs bochsbios vgabios isolinux syslinux-common xorriso busybox-static cpio
#   apt-get download linux-image-VERSION-cloud-amd64 && dpkg -x linux-image-*.deb unpacked
# Usage: tests/emulated/avx512.sh PYTHON KERNEL [ISA]      (KERNEL: the unpacked boot/vmlinuz-VERSION)
# ISA is avx512 or avx512bf16; for the latter, and Bochs 3.0 as in Debian 13, BOCHS names the program and
# BOCHS_SHARE the folder with its BIOS where these are not the installed ones. That run has not been seen to
# finish yet.
set -euo pipefail
python=$1 kernel=$2 isa=${3:-avx512}
case $isa in
  avx512) model=corei7_skylake_x ;;
  avx512bf16) model=sapphire_rapids ;;
  *) echo "expected avx512 or avx512bf16, got $isa" >&2; exit 2 ;;
esac
bochs=${BOCHS:-bochs-bin} share=${BOCHS_SHARE:-/usr/share/bochs}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,packages} "$work/iso/isolinux"

# The interpreter, its standard library, numpy and convlet, and every shared library that they need.
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
library=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
interpreter=$prefix/bin/python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
mkdir -p "$root$prefix/bin" "$root$library"
cp -L "$interpreter" "$root$prefix/bin/python"
tar -C "$library" -c --exclude=./{site-packages,dist-packages,test,ensurepip,idlelib,tkinter} \
  --exclude='./config-3*' --exclude=__pycache__ . | tar -C "$root$library" -x
for module in numpy convlet; do
  package=$("$python" -c "import os, $module; print(os.path.dirname($module.__file__))")
  cp -rL "$package" "$root/packages/"
  if [ -d "$package.libs" ]; then cp -r "$package.libs" "$root/packages/"; fi
done
find "$root" \( -name __pycache__ -o -name tests \) -prune -exec rm -rf {} +
cp "$here/../isa_cases.py" /bin/busybox "$root/bin/"
{ ldd "$interpreter"; find "$root" -name '*.so*' -exec ldd {} \; 2>/dev/null; } |
  grep -o '/[^ ]*\.so[^ ]*' | grep -v "^$root" | sort -u | while read -r file; do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
  done

cat >"$root/init" <<END
#!/bin/busybox sh
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t devtmpfs none /dev
export PYTHONHOME=$prefix PYTHONPATH=/packages PYTHONDONTWRITEBYTECODE=1 OPENBLAS_NUM_THREADS=1
LD_LIBRARY_PATH=$prefix/lib $prefix/bin/python -S /bin/isa_cases.py $isa >/dev/ttyS0 2>&1
/bin/busybox sleep 3
/bin/busybox poweroff -f
END
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/iso/initrd.gz"
cp "$kernel" "$work/iso/vmlinuz"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/iso/isolinux/"
# Bochs 2.7 describes the compacted XSAVE area wrongly; without XSAVEC (321) and XSAVES (323) Linux
# takes the standard one.
cat >"$work/iso/isolinux/isolinux.cfg" <<END
DEFAULT linux
LABEL linux
 KERNEL /vmlinuz
 APPEND initrd=/initrd.gz console=ttyS0 quiet tsc=unstable lpj=1000000 nopku clearcpuid=321,323 mitigations=off
END
xorriso -as mkisofs -quiet -o "$work/disc.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat \
  -no-emul-boot -boot-load-size 4 -boot-info-table "$work/iso" 2>/dev/null

cat >"$work/machine" <<END
cpu: model=$model, ips=200000000
memory: guest=1536, host=1536
romimage: file=$share/BIOS-bochs-latest
vgaromimage: file=$share/VGABIOS-lgpl-latest
boot: cdrom
ata0-master: type=cdrom, path=$work/disc.iso, status=inserted
com1: enabled=1, mode=file, dev=$work/serial
display_library: rfb, options="timeout=0"
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
log: $work/log
clock: sync=none
panic: action=fatal
END
echo continue >"$work/commands"
# Debian's Bochs has a debugger, which reads commands and wants its input to stay open.
$bochs -q -f "$work/machine" -rc "$work/commands" < <(sleep 3600) >"$work/output" 2>&1 || true
cat "$work/serial"
grep -q "$isa agrees with baseline" "$work/serial"
