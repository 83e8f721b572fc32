#!/bin/sh
# Fetch vtest.avi, real pedestrians seen by a fixed camera, from Debian's opencv-doc into a folder.
# The package is downloaded and unpacked, not installed: tests/fetch_vtest.sh FOLDER
set -eu
[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
[ -s "$folder/vtest.avi" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download opencv-doc
member=$(dpkg-deb --fsys-tarfile opencv-doc_*.deb | tar -t | grep -E '/vtest\.avi(\.gz)?$' | head -n 1)
[ -n "$member" ] || { echo "error: opencv-doc holds no vtest.avi" >&2; exit 1; }
dpkg-deb --fsys-tarfile opencv-doc_*.deb | tar -x -O "$member" > part
case "$member" in *.gz) gzip -d < part > whole ;; *) mv part whole ;; esac
mv whole "$folder/vtest.avi"
