#include "golden/hdf5_tree.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "golden/hdf5_handle.h"
#include "golden/hdf5_heap.h"
#include "golden/hdf5_type.h"
#include "golden/tree_message.h"
#include "harness/contract/counted_words.h"
#include "harness/contract/error.h"

namespace assay::hdf5 {
namespace {

struct Link {
  std::string name;
  H5L_type_t type;
};

class TreeReader {
 public:
  explicit TreeReader(const TextHeap& heap) : heap_(heap) {}

  void object(const Handle& handle, StoredObject& out, int depth) {
    H5O_info_t info{};
    check(H5Oget_info2(handle.get(), &info, H5O_INFO_BASIC | H5O_INFO_NUM_ATTRS), "look at it");
    attributes(handle, info, out);
    switch (info.type) {
      case H5O_TYPE_GROUP:
        out.kind = ObjectKind::Group;
        group(handle, info.addr, out, depth);
        break;
      case H5O_TYPE_DATASET:
        out.kind = ObjectKind::Dataset;
        try {
          dataset(handle, out);
        } catch (const InputError& error) {
          out.refusal = error.what();
        }
        break;
      default: out.refusal = "is neither group nor dataset";
    }
  }

 private:
  void count(std::size_t& so_far, std::size_t more, const char* what) {
    so_far += more;
    if (so_far > kMostEntries) throw InputError(fmt::format("it has more than {} {}", kMostEntries, what));
  }

  void group(const Handle& handle, haddr_t address, StoredObject& out, int depth) {
    if (!groups_.insert(address).second) {
      out.refusal = "is a group that has another name as well";
      return;
    }
    if (depth >= kDeepestGroup) {
      out.refusal = fmt::format("lies deeper than {} groups", kDeepestGroup);
      return;
    }
    for (const auto& link : links(handle)) {
      auto& child = out.children.emplace_back();
      child.name = link.name;
      if (link.type != H5L_TYPE_HARD) {
        child.refusal = link.type == H5L_TYPE_SOFT
                            ? "is a soft link; only hard links are followed"
                            : "is a link to another file; only hard links are followed";
        continue;
      }
      try {
        object(own(H5Oopen(handle.get(), link.name.c_str(), H5P_DEFAULT), H5Oclose, "open it"), child,
               depth + 1);
      } catch (const InputError& error) {
        child.refusal = error.what();
      }
    }
  }

  /// Links in native order: for any other the library builds a table first, and on damage frees entries that
  /// it never filled.
  std::vector<Link> links(const Handle& group) {
    H5G_info_t info{};
    check(H5Gget_info(group.get(), &info), "list a group");
    count(objects_, info.nlinks, "objects");
    std::vector<Link> found;
    const H5L_iterate_t keep = [](hid_t, const char* name, const H5L_info_t* link, void* list) -> herr_t {
      static_cast<std::vector<Link>*>(list)->push_back({name, link->type});
      return 0;
    };
    check(H5Literate(group.get(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, keep, &found), "list a group");
    std::ranges::sort(found, {}, &Link::name);
    return found;
  }

  void attributes(const Handle& handle, const H5O_info_t& info, StoredObject& out) {
    count(attributes_, info.num_attrs, "attributes");
    std::vector<std::string> names;
    const H5A_operator2_t keep = [](hid_t, const char* name, const H5A_info_t*, void* list) -> herr_t {
      static_cast<std::vector<std::string>*>(list)->emplace_back(name);
      return 0;
    };
    check(H5Aiterate2(handle.get(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, keep, &names),
          "list its attributes");
    std::ranges::sort(names);
    for (const auto& name : names) {
      auto& attribute = out.attributes.emplace_back();
      attribute.name = name;
      try {
        value(own(H5Aopen(handle.get(), name.c_str(), H5P_DEFAULT), H5Aclose, "open it"), attribute);
      } catch (const InputError& error) {
        attribute.kind = StoredAttribute::Kind::Unreadable;
        attribute.text = error.what();
      }
    }
  }

  void value(const Handle& attribute, StoredAttribute& out) {
    const auto type = own(H5Aget_type(attribute.get()), H5Tclose, "read its type");
    const auto space = own(H5Aget_space(attribute.get()), H5Sclose, "read its shape");
    const auto elements = check(H5Sget_simple_extent_npoints(space.get()), "read its shape");
    const auto described = describe_type(type);
    constexpr hssize_t kMostNumbers = 32;
    if (elements == 1 && H5Tget_class(type.get()) == H5T_STRING) {
      out.kind = StoredAttribute::Kind::Text;
      out.text = text(attribute, type);
    } else if ((described.stored == StoredAs::Signed || described.stored == StoredAs::Unsigned) &&
               elements >= 1 && elements <= kMostNumbers) {
      out.integers.resize(static_cast<std::size_t>(elements));
      const bool with_sign = described.stored == StoredAs::Signed;
      check(H5Aread(attribute.get(), with_sign ? H5T_NATIVE_INT64 : H5T_NATIVE_UINT64, out.integers.data()),
            "read it");
      out.kind = with_sign ? StoredAttribute::Kind::Signed : StoredAttribute::Kind::Unsigned;
    } else if (described.stored == StoredAs::Float64 && elements == 1) {
      check(H5Aread(attribute.get(), H5T_NATIVE_DOUBLE, &out.real), "read it");
      out.kind = StoredAttribute::Kind::Real;
    } else {
      throw InputError(fmt::format("it holds {} of {}", counted(elements, "element"), described.name));
    }
  }

  std::string text(const Handle& attribute, const Handle& type) {
    if (check(H5Tis_variable_str(type.get()), "read its type") > 0) {
      char* read = nullptr;
      check(H5Aread(attribute.get(), type.get(), static_cast<void*>(&read)), "read it");
      std::string value = read == nullptr ? "" : read;
      H5free_memory(read);
      if (!value.empty() && !heap_.holds(value))
        throw InputError("it points to a text that is not in the file's heap of texts");
      return value;
    }
    constexpr std::size_t kLongest = 1 << 16;
    std::string value(H5Tget_size(type.get()), '\0');
    if (value.size() > kLongest) throw InputError(fmt::format("it is a text of {} bytes", value.size()));
    check(H5Aread(attribute.get(), type.get(), value.data()), "read it");
    const bool spaces = H5Tget_strpad(type.get()) == H5T_STR_SPACEPAD;
    value.erase(spaces ? value.find_last_not_of(' ') + 1 : std::min(value.find('\0'), value.size()));
    return value;
  }

  void dataset(const Handle& handle, StoredObject& out) {
    // The layout first: asking a virtual dataset for its shape would open other files.
    const auto creation = own(H5Dget_create_plist(handle.get()), H5Pclose, "read its layout");
    const auto layout = H5Pget_layout(creation.get());
    if (layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED)
      throw InputError(fmt::format("has {}; only contiguous and chunked datasets are read",
                                   layout == H5D_VIRTUAL   ? "a virtual layout, made of other files"
                                   : layout == H5D_COMPACT ? "a compact layout"
                                                           : "an unknown layout"));
    if (check(H5Pget_external_count(creation.get()), "read its layout") > 0)
      throw InputError("keeps its data in another file; only data in the file itself are read");
    const auto type = own(H5Dget_type(handle.get()), H5Tclose, "read its type");
    const auto described = describe_type(type);
    out.stored = described.stored;
    out.type_name = described.name;
    out.element_size = H5Tget_size(type.get());
    out.big_endian = described.big_endian;
    const auto space = own(H5Dget_space(handle.get()), H5Sclose, "read its shape");
    if (H5Sget_simple_extent_type(space.get()) == H5S_NULL) throw InputError("has no shape");
    std::vector<hsize_t> extents(
        static_cast<std::size_t>(check(H5Sget_simple_extent_ndims(space.get()), "read its shape")));
    check(H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr), "read its shape");
    for (const auto extent : extents) {
      if (extent > INT64_MAX) throw InputError("has an extent above 2^63");
      out.shape.push_back(static_cast<std::int64_t>(extent));
    }
    if (layout == H5D_CONTIGUOUS) {
      contiguous(handle, out);
    } else {
      chunked(handle, creation, out);
    }
  }

  static void contiguous(const Handle& handle, StoredObject& out) {
    const auto bytes = H5Dget_storage_size(handle.get());
    const auto address = H5Dget_offset(handle.get());
    H5Eclear2(H5E_DEFAULT);
    const bool written = bytes > 0 && address != HADDR_UNDEF;
    out.stretches.push_back({written ? address : 0, written ? bytes : 0, 0});
  }

  void chunked(const Handle& handle, const Handle& creation, StoredObject& out) {
    std::vector<hsize_t> chunk(out.shape.size());
    const auto rank =
        check(H5Pget_chunk(creation.get(), static_cast<int>(chunk.size()), chunk.data()), "read its chunks");
    if (rank != static_cast<hssize_t>(chunk.size())) throw InputError("has chunks of another rank");
    unsigned options = 0;
    check(H5Pget_chunk_opts(creation.get(), &options), "read its chunks");
    if (options != 0) throw InputError("leaves chunks at its edge unfiltered, which is not read");
    filters(creation, out);
    std::size_t total = out.shape.empty() ? 0 : 1;
    for (std::size_t axis = 0; axis < chunk.size(); ++axis) {
      const auto extent = static_cast<hsize_t>(out.shape[axis]);
      if (chunk[axis] == 0 || chunk[axis] > UINT32_MAX) throw InputError("has chunks without a size");
      out.chunk.push_back(static_cast<std::int64_t>(chunk[axis]));
      const auto count = extent / chunk[axis] + (extent % chunk[axis] != 0 ? 1 : 0);
      if (count > kMostChunks || total * count > kMostChunks)
        throw InputError(fmt::format("has more than {} chunks", kMostChunks));
      total *= count;
    }
    chunks_ += total;
    if (chunks_ > kMostChunks) throw InputError(fmt::format("has more than {} chunks", kMostChunks));
    std::vector<hsize_t> at(chunk.size(), 0);
    for (std::size_t i = 0; i < total; ++i) {
      unsigned skipped = 0;
      haddr_t address = HADDR_UNDEF;
      hsize_t bytes = 0;
      check(H5Dget_chunk_info_by_coord(handle.get(), at.data(), &skipped, &address, &bytes),
            "find its chunks");
      const bool written = address != HADDR_UNDEF;
      out.stretches.push_back({written ? address : 0, written ? bytes : 0, skipped});
      for (std::size_t axis = at.size(); axis-- > 0;) {
        at[axis] += chunk[axis];
        if (at[axis] < static_cast<hsize_t>(out.shape[axis])) break;
        at[axis] = 0;
      }
    }
  }

  static void filters(const Handle& creation, StoredObject& out) {
    const auto count = check(H5Pget_nfilters(creation.get()), "read its filters");
    for (unsigned i = 0; i < static_cast<unsigned>(count); ++i) {
      unsigned flags = 0;
      unsigned config = 0;
      unsigned parameters[8] = {};
      std::size_t parameter_count = std::size(parameters);
      char name[64] = {};
      StoredFilter filter;
      filter.id = static_cast<std::int32_t>(check(H5Pget_filter2(creation.get(), i, &flags, &parameter_count,
                                                                 parameters, sizeof name - 1, name, &config),
                                                  "read its filters"));
      filter.first = parameter_count > 0 ? parameters[0] : 0;
      filter.name = name;
      out.filters.push_back(std::move(filter));
    }
  }

  const TextHeap& heap_;
  std::set<haddr_t> groups_;
  std::size_t objects_ = 0;
  std::size_t attributes_ = 0;
  std::size_t chunks_ = 0;
};

}  // namespace

StoredObject read_tree(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  const auto held = lock();
  // Filters that are plug-ins on a disk would be loaded by name.
  H5PLset_loading_state(0);
  const auto heap = read_text_heap(bytes);
  if (!heap.damage.empty()) throw InputError(heap.damage);
  const auto file = open_file(path);
  const auto creation = own(H5Fget_create_plist(file.get()), H5Pclose, "read the superblock");
  hsize_t before = 0;
  check(H5Pget_userblock(creation.get(), &before), "read the superblock");
  if (before != 0)
    throw InputError(fmt::format("{} bytes of something else stand before its HDF5 part", before));
  StoredObject root;
  TreeReader(heap).object(open_root(file), root, 0);
  if (!root.refusal.empty()) throw InputError("its root " + root.refusal);
  return root;
}

}  // namespace assay::hdf5
