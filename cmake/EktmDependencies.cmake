# Finds every part that ektm stands on. Debian parts come from the system; libtorch and Arrow come from the `torch` and
# `pyarrow` wheels of the repository's .venv, or from wherever CMAKE_PREFIX_PATH says.
find_package(Threads REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(spdlog REQUIRED)
find_path(CLI11_INCLUDE CLI/CLI.hpp REQUIRED)
find_path(XXHASH_INCLUDE xxhash.h REQUIRED)
find_path(FMT_INCLUDE fmt/format.h REQUIRED)
# fmt stays header-only: libtorch carries its own copy of another version; the versions' inline namespaces keep them apart.
add_compile_definitions(FMT_HEADER_ONLY)
if(EKTM_TESTS)
  find_package(GTest REQUIRED)
endif()

set(EKTM_PYTHON "${CMAKE_CURRENT_SOURCE_DIR}/.venv/bin/python" CACHE FILEPATH "Python that has torch and pyarrow")

# --- Arrow ------------------------------------------------------------------------------------------------------------
find_package(Arrow CONFIG QUIET)
find_package(Parquet CONFIG QUIET)
find_package(ArrowDataset CONFIG QUIET)
add_library(ektm_arrow INTERFACE)
if(Arrow_FOUND AND Parquet_FOUND AND ArrowDataset_FOUND)
  target_link_libraries(ektm_arrow INTERFACE Arrow::arrow_shared Parquet::parquet_shared ArrowDataset::arrow_dataset_shared)
  if(TARGET ArrowCompute::arrow_compute_shared)
    target_link_libraries(ektm_arrow INTERFACE ArrowCompute::arrow_compute_shared)
  endif()
else()
  execute_process(COMMAND ${EKTM_PYTHON} -c "import pyarrow, os; print(os.path.dirname(pyarrow.__file__))"
                  OUTPUT_VARIABLE PYARROW_DIR OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE PYARROW_RC ERROR_QUIET)
  if(NOT PYARROW_RC EQUAL 0)
    message(FATAL_ERROR "Arrow C++ was not found: neither by CMAKE_PREFIX_PATH nor as pyarrow of ${EKTM_PYTHON}. "
                        "Run scripts/setup.sh, or pass -DCMAKE_PREFIX_PATH=<prefix of Arrow>.")
  endif()
  target_include_directories(ektm_arrow SYSTEM INTERFACE ${PYARROW_DIR}/include)
  foreach(part arrow arrow_dataset arrow_acero arrow_compute parquet)
    file(GLOB lib ${PYARROW_DIR}/lib${part}.so.*)
    list(FILTER lib EXCLUDE REGEX "\\.so\\.[0-9]+\\.[0-9]")
    if(NOT lib)
      message(FATAL_ERROR "lib${part}.so was not found in ${PYARROW_DIR}; expected pyarrow 26 or newer.")
    endif()
    target_link_libraries(ektm_arrow INTERFACE ${lib})
  endforeach()
  list(APPEND CMAKE_BUILD_RPATH ${PYARROW_DIR})
  list(APPEND CMAKE_INSTALL_RPATH ${PYARROW_DIR})
endif()

# --- libtorch ---------------------------------------------------------------------------------------------------------
if(EKTM_TORCH)
  find_package(Torch QUIET)
  if(NOT Torch_FOUND)
    execute_process(COMMAND ${EKTM_PYTHON} -c "import torch.utils; print(torch.utils.cmake_prefix_path)"
                    OUTPUT_VARIABLE TORCH_PREFIX OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE TORCH_RC ERROR_QUIET)
    if(NOT TORCH_RC EQUAL 0)
      message(FATAL_ERROR "libtorch was not found: neither by CMAKE_PREFIX_PATH nor as torch of ${EKTM_PYTHON}. "
                          "Run scripts/setup.sh, or pass -DCMAKE_PREFIX_PATH=<libtorch>.")
    endif()
    list(APPEND CMAKE_PREFIX_PATH ${TORCH_PREFIX})
    find_package(Torch REQUIRED)
  endif()
  add_library(ektm_torch INTERFACE)
  target_include_directories(ektm_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
  target_link_libraries(ektm_torch INTERFACE ${TORCH_LIBRARIES})
  # at::parallel_for is a template over OpenMP: without the flag it would run on one thread.
  target_compile_options(ektm_torch INTERFACE -fopenmp)
  target_link_options(ektm_torch INTERFACE -fopenmp)
endif()
