//go:build unsynced

package stable

import "os"

func File(*os.File) error       { return nil }
func Data(*os.File) error       { return nil }
func FileSystem(*os.File) error { return nil }
