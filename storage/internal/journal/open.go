package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// segmentPrefix and a number are the name of a segment's file.
const segmentPrefix = "segment-"

// Open opens the journal in the directory path, which exists. Replay then gives
// what the last process has left.
func Open(path string, o Options) (_ *Journal, err error) {
	o = o.withDefaults()
	root, dir, err := openDir(path)
	if err != nil {
		return nil, err
	}
	j := &Journal{options: o, root: root, dir: dir, round: &round{}, pressure: make(chan struct{}, 1)}
	j.space.L = &j.mu
	defer func() {
		if err != nil {
			err = errors.Join(err, j.Close())
		}
	}()
	found, err := openSegments(root, os.O_RDWR, o.Read)
	j.free = found
	if err != nil {
		return nil, err
	}
	c, err := survey(found, o.Read)
	if err != nil {
		return nil, err
	}
	found, err = j.keepUnreadable(found)
	j.free = found
	if err != nil {
		return nil, err
	}
	if err := o.SyncDir(dir); err != nil {
		return nil, err
	}
	for _, s := range found {
		if s.mended != nil {
			o.Mended(fmt.Errorf("%s has no valid header, that in its first frame is used: %w", s.file.Name(), s.mended))
		}
		later, err := s.later(o.Read)
		if err != nil {
			return nil, err
		}
		j.slot = max(j.slot, s.slot+1)
		j.number = max(j.number, s.number, later)
	}
	if n := len(c.segments); n > 0 { // the others were synced before it was begun
		if err := o.Sync(c.segments[n-1].file); err != nil {
			return nil, fmt.Errorf("opening the journal: %w", err)
		}
	}
	for _, d := range c.damage() {
		o.Damaged(d)
	}
	j.chain, j.free = c.segments, c.rest
	j.last, j.record, j.checkpoint, j.unneeded = c.last, c.record, c.checkpoint, c.checkpoint
	j.release()
	j.provide()
	return j, nil
}

// openDir opens the directory path, for two kinds of calls.
func openDir(path string) (*os.Root, *os.File, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, nil, err
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, nil, errors.Join(err, root.Close())
	}
	return root, dir, nil
}

// LastOf is the sequence number of the last record of the journal in the
// directory path, which another process may have open; 0 if there is none. It may
// be a later number than that of the last record that was acknowledged, but
// all records that are acknowledged after the call have higher ones.
func LastOf(path string) (uint64, error) {
	var err error
	for range 100 { // each lost only to a segment that was used up in that moment
		last, stale, failed := lastOf(path)
		if !stale {
			return last, failed
		}
		err = failed
	}
	why := "it changes too fast"
	if errors.Is(err, errHeader) {
		why = "start the server first, which says what is lost"
	}
	return 0, errors.Join(fmt.Errorf("reading the journal %s: %s", path, why), err)
}

// lastOf is LastOf, or tells that the newest segment has become another one.
func lastOf(path string) (last uint64, stale bool, err error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return 0, false, err
	}
	defer root.Close()
	read := (*os.File).ReadAt
	found, err := openSegments(root, os.O_RDONLY, read)
	defer func() {
		for _, s := range found {
			s.file.Close()
		}
	}()
	if errors.Is(err, os.ErrNotExist) { // a segment, or all of it
		_, err = os.Stat(path)
		return 0, err == nil, err
	}
	if err != nil || len(found) == 0 {
		return 0, false, err
	}
	newest := slices.MaxFunc(found, func(a, b *segment) int { return cmp.Compare(a.number, b.number) })
	var c chain
	if newest.number > 0 {
		err = c.add(newest, -1, read)
		if err = errors.Join(err, newest.unreadable); err != nil {
			return 0, false, err
		}
	}
	if err := doubted(found, c.last, read); err != nil { // or a header is just being written
		return 0, errors.Is(err, errHeader), err
	}
	if newest.number == 0 {
		return 0, false, nil
	}
	now := segment{file: newest.file, size: newest.size}
	err = now.readHeader(read)
	return c.last, now.segmentHeader != newest.segmentHeader, err
}

// openSegments opens all files of the journal and reads their headers. On an
// error it gives those that are open.
func openSegments(root *os.Root, flag int, read reader) (found []*segment, err error) {
	names, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", root.Name(), err)
	}
	for _, name := range names {
		number, ok := strings.CutPrefix(name.Name(), segmentPrefix)
		slot, err := strconv.ParseUint(number, 10, 31)
		if !ok || err != nil {
			continue
		}
		f, err := root.OpenFile(name.Name(), flag, 0)
		if err != nil {
			return found, fmt.Errorf("%s: %w", root.Name(), err)
		}
		s := &segment{slot: int(slot), file: f, stuck: true}
		found = append(found, s)
		st, err := f.Stat()
		if err != nil {
			return found, err
		}
		s.size = st.Size()
		if err := s.readHeader(read); err != nil {
			return found, err
		}
	}
	return found, nil
}

// chain is the segments in use, oldest first, and what they say.
type chain struct {
	segments, rest []*segment
	last           uint64 // sequence number
	record         uint64 // of the last that is no checkpoint
	checkpoint     uint64
}

// follow finds the chain of segments, from the newest one back to where nothing is
// needed any more.
func follow(found []*segment, read reader) (c chain, err error) {
	c.rest = slices.Clone(found)
	slices.SortFunc(c.rest, func(a, b *segment) int { return cmp.Compare(b.number, a.number) })
	salt, limit := uint64(0), int64(-1)
	if len(c.rest) > 0 && c.rest[0].number > 0 {
		salt = c.rest[0].salt
	}
	for salt != 0 {
		i := slices.IndexFunc(c.rest, func(s *segment) bool { return s.salt == salt })
		if i < 0 {
			break
		}
		s := c.rest[i]
		if err := c.add(s, limit, read); err != nil {
			return c, err
		}
		c.rest = slices.Delete(c.rest, i, i+1)
		if s.prevLast <= c.checkpoint {
			break
		}
		salt, limit = s.prevSalt, int64(s.prevEnd)
	}
	slices.Reverse(c.rest) // the longest unused first
	return c, nil
}

// add reads a segment and puts it in front of the chain. limit is where its
// frames end, -1 if that is not known.
func (c *chain) add(s *segment, limit int64, read reader) error {
	octets, known := min(s.size, maxSegment), limit >= 0
	if known {
		octets = min(octets, limit)
	} else {
		limit = octets
	}
	content, lost, err := s.read(octets, read)
	if err != nil {
		return fmt.Errorf("reading %s: %w", s.file.Name(), err)
	}
	if lost != nil {
		s.bad, s.unreadable = true, fmt.Errorf("reading %s: %w", s.file.Name(), lost)
	}
	s.last = s.first - 1
	s.end, s.damaged, err = s.walk(content, limit, func(f frame) error {
		s.last = f.first + uint64(f.count) - 1
		return f.records(func(seq uint64, kind byte, record []byte) error {
			if kind == kindCheckpoint {
				c.checkpoint = max(c.checkpoint, checkpointOf(record))
			} else {
				c.record = max(c.record, seq)
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("%s: %w", s.file.Name(), err)
	}
	s.damaged = s.damaged || lost != nil || known && s.end != limit
	c.last = max(c.last, s.last)
	c.segments = append([]*segment{s}, c.segments...)
	return nil
}

// missing is whether records are needed of segments that were not found.
func (c *chain) missing() bool {
	return len(c.segments) > 0 && c.segments[0].prevLast > c.checkpoint
}

// damage lists what is missing of the records that are needed.
func (c *chain) damage() (found []error) {
	for i, s := range c.segments {
		until := uint64(math.MaxUint64)
		if i+1 < len(c.segments) {
			until = c.segments[i+1].prevLast
		}
		if i == 0 && c.missing() {
			found = append(found, fmt.Errorf("the journal has lost records %d to %d", c.checkpoint+1, s.prevLast))
		}
		if s.damaged && until > c.checkpoint {
			found = append(found, errors.Join(fmt.Errorf("%s is damaged and has lost records", s.file.Name()), s.unreadable))
		}
	}
	return found
}

// Replay calls fn for each record that no checkpoint covers, in order. record is
// valid until fn returns. It may run beside Append, but not beside Checkpoint. Damage
// that Open has not reported is an error.
func (j *Journal) Replay(fn func(seq uint64, record []byte) error) error {
	j.mu.Lock()
	type part struct {
		*segment
		end int64
	}
	var parts []part
	for _, s := range j.chain {
		parts = append(parts, part{s, s.end})
	}
	after := j.checkpoint
	j.mu.Unlock()
	for _, p := range parts {
		content, lost, err := p.read(p.end, j.options.Read)
		if err != nil {
			return fmt.Errorf("reading %s: %w", p.file.Name(), err)
		}
		end, damaged, err := p.walk(content, p.end, func(f frame) error {
			return f.records(func(seq uint64, kind byte, record []byte) error {
				if kind != kindRecord || seq <= after {
					return nil
				}
				return fn(seq, record)
			})
		})
		if err != nil {
			return err
		}
		if (damaged || lost != nil || end != p.end) && !p.damaged {
			return errors.Join(fmt.Errorf("%s is damaged since it was opened", p.file.Name()), lost)
		}
	}
	return nil
}

// provide makes the segments that are to be free, and the next one as long as it
// will be: to make it longer later costs a sync of more than its octets. On a full
// disk what is there may do; an Append that needs more says so.
func (j *Journal) provide() {
	j.free = slices.DeleteFunc(j.free, func(s *segment) bool {
		unfit := s.bad || s.size < j.shortest() // the process that made it came to its end in that
		if unfit {
			j.remove(s)
		}
		return unfit
	})
	for len(j.free) <= keptByMost {
		s, err := j.create()
		if err != nil {
			return
		}
		j.free = append(j.free, s)
	}
	next := j.free[0]
	for next.size < j.options.SegmentSize {
		if err := j.lengthen(next, min(next.size+growth, j.options.SegmentSize)); err != nil {
			return
		}
	}
	if err := j.options.Sync(next.file); err != nil {
		j.free = j.free[1:]
		j.remove(next)
	}
}

// shortest is the octets that a new segment has.
func (j *Journal) shortest() int64 { return min(growth, j.options.SegmentSize) }

// lengthen writes zeros to the end of a segment.
func (j *Journal) lengthen(s *segment, to int64) error {
	if err := j.options.Write(s.file, make([]byte, to-s.size), s.size); err != nil {
		return err
	}
	s.size = to
	return nil
}

// create makes the file of a new segment, with octets on stable storage: it may
// have to serve when the disk is full.
func (j *Journal) create() (*segment, error) {
	f, err := j.root.OpenFile(segmentPrefix+strconv.Itoa(j.slot), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", j.root.Name(), err)
	}
	s := &segment{slot: j.slot, file: f}
	j.slot++
	if err = j.lengthen(s, j.shortest()); err == nil {
		err = j.options.Sync(f)
	}
	if err == nil {
		err = j.options.SyncDir(j.dir)
	}
	if err != nil {
		j.remove(s)
		return nil, err
	}
	return s, nil
}

// remove removes the file of a segment that is not in use. Should it come back
// after a crash, no chain leads to it. What could not be read of it may be records,
// so it is kept then.
func (j *Journal) remove(s *segment) {
	if s.unreadable != nil {
		_, _ = j.setAside(s)
	} else {
		_ = j.root.Remove(filepath.Base(s.file.Name()))
	}
	_ = s.file.Close()
}
